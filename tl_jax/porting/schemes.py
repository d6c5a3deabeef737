"""All namings, and how that of a file is recognised."""

import re
from collections.abc import Iterable

from tl_jax.errors import InputError, unknown
from tl_jax.porting import keras_names, resnet_names, vgg_names
from tl_jax.porting.naming import Naming

# Our own leaf names and layouts, of any network.
_OWN = Naming("tl_jax", "any network", r"params/.*", (), {})
# Looked at in this order: the first whose marker occurs is the naming.
NAMINGS: tuple[Naming, ...] = (
    _OWN,
    *resnet_names.NAMINGS,
    *vgg_names.NAMINGS,
    *keras_names.NAMINGS,
)

# Names of the same scheme under which users look for it.
ALIASES = {"timm": "torchvision", "transformers": "huggingface"}


def get_naming(name: str, leaf_names: Iterable[str] = ()) -> Naming:
    """Returns the naming called `name`, or that of which it is an alias.

    Args:
        name: such as "torchvision".
        leaf_names: of a model, which choose between the families of networks that have a naming so called;
            where none of these names every leaf, the first is returned.

    Raises:
        InputError: if there is none.
    """
    leaf_names = list(leaf_names)
    called = [naming for naming in NAMINGS if naming.name == name]
    called += [naming for naming in NAMINGS if naming.name == ALIASES.get(name)]
    if not called:
        raise unknown("naming", name, {*(naming.name for naming in NAMINGS), *ALIASES})
    return next((naming for naming in called if naming.names_all(leaf_names)), called[0])


def recognise(source_names: Iterable[str]) -> Naming:
    """Returns the naming whose marker is among the source names.

    Raises:
        InputError: if no marker is; the message shows the first names and the known markers.
    """
    source_names = list(source_names)
    for naming in NAMINGS:
        if any(re.fullmatch(naming.marker, name) for name in source_names):
            return naming
    shown = ", ".join(repr(name) for name in sorted(source_names)[:5]) or "none"
    known = "; ".join(
        f"{naming.name} of {naming.network} (has {naming.marker})" for naming in NAMINGS
    )
    raise InputError(
        f"the naming of the {len(source_names)} source tensors is not recognised; "
        f"they are named like {shown}; known namings: {known}"
    )
