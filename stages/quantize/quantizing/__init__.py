"""How a quantizing stage does its work: the graph prepared, read over calibration data, and told of afterwards."""
