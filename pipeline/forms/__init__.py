"""What a model is on disk: graphs, weights, encoder-decoders."""
