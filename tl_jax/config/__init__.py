"""Configs: every field, its default and what it may hold; files, checks and what makes two configs one run.

A config is an `ml_collections.ConfigDict` of sections. `default_config()` has every field; `FIELDS` describes them.
"""

from tl_jax.config.access import (
    changes,
    check_field,
    completed,
    default_config,
    flat,
    naming_fields,
    of_command,
    set_field,
    set_value,
    upgraded,
)
from tl_jax.config.check import check
from tl_jax.config.field import Field
from tl_jax.config.file import load
from tl_jax.config.identity import Identity, identity_of
from tl_jax.config.input_fields import LARGEST_IMAGE_SIZE
from tl_jax.config.listing import list_fields, page
from tl_jax.config.phases import (
    PHASE_SECTIONS,
    assigned,
    gradual_unfreezing,
    lp_ft,
    naming_phase,
    phase_configs,
)
from tl_jax.config.table import COMMAND_SECTIONS, FIELDS, SECTIONS
from tl_jax.config.updates import ONLY_OF_UPDATES, without_updates

__all__ = [
    "COMMAND_SECTIONS",
    "FIELDS",
    "LARGEST_IMAGE_SIZE",
    "ONLY_OF_UPDATES",
    "PHASE_SECTIONS",
    "SECTIONS",
    "Field",
    "Identity",
    "assigned",
    "changes",
    "check",
    "check_field",
    "completed",
    "default_config",
    "flat",
    "gradual_unfreezing",
    "identity_of",
    "list_fields",
    "load",
    "lp_ft",
    "naming_fields",
    "naming_phase",
    "of_command",
    "page",
    "phase_configs",
    "set_field",
    "set_value",
    "upgraded",
    "without_updates",
]
