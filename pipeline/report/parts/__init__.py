"""What single stages report of their work, read back from the record for every kind of report."""
