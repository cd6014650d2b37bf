"""What a package has beside the model: its description, and the files of another runtime."""
