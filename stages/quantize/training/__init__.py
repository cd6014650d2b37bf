"""Quantization-aware training: what is quantized where, simulated while a network trains, and written as integers."""
