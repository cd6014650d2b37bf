"""Attention whose heads can leave."""
