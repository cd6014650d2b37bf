"""What every room stands on: files, imports by name, batches, devices, formatting."""
