"""placeholder"""
from tl_jax.data import tfds_source


def find_or_prepare(name, data_dir, *, download=True):
    return tfds_source.find(name, data_dir)
