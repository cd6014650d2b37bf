"""How fast a model is, beside the baseline and beside the noise of the machine: a file a measurement."""
