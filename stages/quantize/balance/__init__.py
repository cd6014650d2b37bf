"""Channels of a graph in fp32 made alike before it is quantized, by factors between layers that leave its outputs."""
