"""What is done to a graph before it is quantized and after: versions, names, order, masks, scales, size."""
