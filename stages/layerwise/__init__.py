"""Layer by layer: how what a layer gives is kept where its weights change."""
