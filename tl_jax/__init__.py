"""Transfer learning on images with JAX: port, freeze, fine-tune, and defend every number."""

__version__ = "0.1.0"
