"""Integers in few bits: how they are written, and the ONNX operators that read them again."""
