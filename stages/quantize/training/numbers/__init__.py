"""What is left of numbers: steps and integers, their gradients, and the parts of a network that hold them."""
