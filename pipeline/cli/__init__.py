"""The commands, a file a group. Thin: each parses, calls and prints; what takes long to import is imported inside."""
