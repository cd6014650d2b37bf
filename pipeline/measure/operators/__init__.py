"""What ONNX operators compute: multiply-accumulates, and which of their inputs are weights."""
