"""What there is to show of single layers: their bytes, how much depends on them, what they do on other CPUs."""
