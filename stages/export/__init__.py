"""Export: from the torch form to the file that is deployed."""
