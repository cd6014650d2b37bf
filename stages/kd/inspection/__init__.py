"""What layers inside a module give, and which correspond."""
