"""Weights and activations in 8 bits: a file a method, from an ONNX file to a smaller one."""
