"""How many channels each group keeps: which matter, what their loss does, and the search for a target."""
