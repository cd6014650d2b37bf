"""What is measured of every model: size, cost and accuracy, one file each."""
