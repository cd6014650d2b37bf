"""MLflow: the only folder that knows it. The run folder is the truth; what is here is its projection."""
