"""An ONNX file as a program of torch, with the integers and scales that it has."""
