"""Configs: every field, its default and what it may hold; files, checks and what makes two configs one run.

A config is an `ml_collections.ConfigDict` of sections. `default_config()` has every field; `FIELDS` describes them.
"""

from tl_jax.config.access import (
    check_field,
    completed,
    default_config,
    flat,
    naming_fields,
    of_command,
    set_field,
    upgraded,
)
from tl_jax.config.check import check
from tl_jax.config.field import Field
from tl_jax.config.file import load
from tl_jax.config.identity import Identity, identity_of
from tl_jax.config.listing import list_fields, page
from tl_jax.config.table import COMMAND_SECTIONS, FIELDS, LARGEST_IMAGE_SIZE, SECTIONS

__all__ = [
    "COMMAND_SECTIONS",
    "FIELDS",
    "LARGEST_IMAGE_SIZE",
    "SECTIONS",
    "Field",
    "Identity",
    "check",
    "check_field",
    "completed",
    "default_config",
    "flat",
    "identity_of",
    "list_fields",
    "load",
    "naming_fields",
    "of_command",
    "page",
    "set_field",
    "upgraded",
]
