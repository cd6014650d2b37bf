"""Which integers weights become: few bits, codebooks, scales of least error, rounding that heeds a layer's inputs."""
