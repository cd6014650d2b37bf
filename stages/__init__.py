"""The stages: a folder a family, a file a method; each file defines exactly one Stage."""
