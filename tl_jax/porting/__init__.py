"""Foreign weights in, strictly accounted for, and our weights out."""

from tl_jax.porting.classes import (
    are_named,
    class_order,
    list_names,
    reorder_head,
    with_matched_head,
)
from tl_jax.porting.export import export_state_dict, save_state_dict
from tl_jax.porting.head import load_head
from tl_jax.porting.hub import fetch
from tl_jax.porting.load import check_source, load_pretrained
from tl_jax.porting.naming import CHANNEL_ORDERS, name_map
from tl_jax.porting.port import HEAD_CHOICES, port_state_dict, reset_rules
from tl_jax.porting.reading import SourceFile, read_source
from tl_jax.porting.report import PortReport
from tl_jax.porting.schemes import NAMINGS, get_naming, recognise

__all__ = [
    "CHANNEL_ORDERS",
    "HEAD_CHOICES",
    "NAMINGS",
    "PortReport",
    "SourceFile",
    "are_named",
    "check_source",
    "class_order",
    "export_state_dict",
    "fetch",
    "get_naming",
    "list_names",
    "load_head",
    "load_pretrained",
    "name_map",
    "port_state_dict",
    "read_source",
    "recognise",
    "reorder_head",
    "reset_rules",
    "save_state_dict",
    "with_matched_head",
]
