"""Built-in tasks: each file holds one function `task(**arguments) -> Task`."""
