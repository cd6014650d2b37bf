"""What a record is made of."""
