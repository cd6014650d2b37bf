"""The forms in which a model is deployed."""
