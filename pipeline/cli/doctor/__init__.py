"""`shrink doctor`: what is here, and what a config would miss. A file a concern; none imports what takes long."""
