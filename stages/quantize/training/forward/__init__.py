"""A forward seen call by call: what it did, where it is quantized, and how it runs so."""
