"""What people read: the terminal today, one file a medium."""
