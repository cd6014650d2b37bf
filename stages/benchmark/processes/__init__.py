"""The fresh processes that load, convert and run a model: where they run, what they are told and tell."""
