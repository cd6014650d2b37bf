"""Which tokens a text model keeps, and the embedding that is cut to them."""
