"""What plotly draws: figures as JSON, from plain values."""
