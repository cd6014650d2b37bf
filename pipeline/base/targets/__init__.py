"""What the targets of a task are: of which kind, where the classes are, which of them count."""
