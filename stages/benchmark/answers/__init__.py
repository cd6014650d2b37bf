"""What a runtime answers: beside ONNX Runtime on real examples, before anything is timed."""
