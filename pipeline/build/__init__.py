"""YAML -> config -> objects, checked: all that can fail before any work fails here."""
