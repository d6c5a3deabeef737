"""Writes the page of all fields: python -m tl_jax.config > docs/config.md."""

from tl_jax.config.listing import page

print(page(), end="")
