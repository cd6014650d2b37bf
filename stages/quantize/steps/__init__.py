"""What ONNX Runtime's tools do from file to file, here or in a `child`: a file a step. None imports torch."""
