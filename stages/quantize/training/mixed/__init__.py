"""The widths of a network's layers, chosen for a score that a training has to keep."""
