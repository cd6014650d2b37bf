"""What ONNX Runtime makes of a file on this machine: its kernels, their time, what is wrong with them, and why."""
