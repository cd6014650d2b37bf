"""What ONNX Runtime's tools do from file to file, here or in a `child`: a file a step.

None needs torch to be imported: what does, as the divergence of answers and Optimum do, is imported by its step when it
runs.
"""
