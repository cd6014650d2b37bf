"""What users' code consists of: the files that are really imported, and what they read while they run."""
