"""What packing weights is made of: codes, the graph that decodes them, what a file can do without, the proof."""
