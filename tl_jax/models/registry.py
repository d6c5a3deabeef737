"""The registered networks, by name; those of users are added with `register`."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import jax.numpy as jnp

from tl_jax.errors import InputError, taken, unknown
from tl_jax.models import resnet, small_cnn, vgg
from tl_jax.models.network import Network, check_module

DTYPES = ("float32", "bfloat16")


class Architecture(Protocol):
    """One registered network of a family.

    Attributes:
        options: what `make` takes besides the number of classes, with the values allowed; () for any.
        naming: in which its weights are exported, one of `porting.NAMINGS`.
    """

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """What `make` takes besides the number of classes, with the values allowed; () for any."""

    @property
    def naming(self) -> str:
        """The naming in which its weights are exported."""

    def make(self, num_classes: int, **options: Any) -> Network:
        """Returns the Linen module."""


ARCHITECTURES: dict[str, Architecture] = {
    **resnet.ARCHITECTURES,
    **vgg.ARCHITECTURES,
    **small_cnn.ARCHITECTURES,
}


@dataclasses.dataclass(frozen=True)
class _Registered:
    """A network of a user's."""

    make: Callable[..., Network]
    options: Mapping[str, tuple[str, ...]]
    naming: str = "tl_jax"


def register(
    name: str, make: Callable[..., Network], *, options: Collection[str] = (), replace: bool = False
) -> None:
    """Gives a network a name, by which `model.name` of a config and `create_model` know it.

    Its weights are exported under their own leaf names (the naming "tl_jax").

    Args:
        name: letters, digits, "_", "-" and ".", such as "my_net".
        make: `make(num_classes, **options) -> Network`, see `models.Network`.
        options: the fields of `config.model` that `make` takes; those at their defaults are not passed.
        replace: whether it takes the place of another network of that name, registered before.

    Raises:
        InputError: if the name is taken or malformed.

    Example:
        >>> register("resnet10", lambda num_classes: resnet.ResNet((1, 1, 1, 1), "basic", num_classes))
        >>> create_model("resnet10", 5).boundaries[-2:]
        ('pool', 'head')
    """
    if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise InputError(
            f"name of a network {name!r}: expected letters, digits, '_', '-' and '.', such as 'my_net'"
        )
    if name in ARCHITECTURES and is_built_in(name):
        raise taken("network", name, ours=True)
    made = _Registered(make, dict.fromkeys(options, ()))
    if ARCHITECTURES.get(name, made) != made and not replace:
        raise taken("network", name)
    ARCHITECTURES[name] = made


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """Returns the registered network called `name`.

    Raises:
        InputError: if there is none.
    """
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def is_built_in(name: str) -> bool:
    """Returns whether a registered network comes with this library."""
    return not isinstance(get_architecture(name), _Registered)


def create_model(name: str, num_classes: int, **options: Any) -> Any:
    """Returns the registered network, a Linen module without variables.

    Args:
        name: one of `list_models()`.
        num_classes: of the head; 0 for no head, the network then returns the features before it.
        **options: those that the network has; one that is None counts as not given.

            - `batch_norm_rows` (with BatchNorm): examples that are normalised together in training, 0 for the whole
              batch; see `BatchNorm.rows`.
            - `stoch_norm` (with BatchNorm): probability of normalising a channel by running statistics in training,
              in [0, 1); see `BatchNorm`.
            - `dtype`: float32 or bfloat16, of the computation; variables and logits are float32.
            - `dropout`: share of the features that are dropped in training, in [0, 1), before the head or, in
              VGG's hidden layers, after each of these; the network's own where it is not given.
            - `remat`: what the backward pass computes again rather than keeps in memory: "" (nothing), "dots"
              (all but convolutions and statistics) or "blocks" (all but each block's input; VGG: each stage's).
            - `stem` (ResNet): "imagenet" (7x7 convolution of stride 2 and max-pool) or "cifar" (3x3
              convolution of stride 1, for images of about 32 pixels); the network's own where not given.
            - `zero_init_residual` (ResNet): whether the last BatchNorm of each block starts with scale 0.
            - `classifier` (VGG): "hidden" (two hidden layers before the head) or "pooled" (none, the head on
              globally pooled features).

    Raises:
        InputError: if one of the arguments is none of the above, or the network has no such option.

    Example:
        >>> create_model("resnet50", 1000).boundaries
        ('stem', 'stage1', 'stage2', 'stage3', 'stage4', 'pool', 'head')
    """
    architecture = get_architecture(name)
    if num_classes < 0:
        raise InputError(
            f"num_classes is {num_classes}, expected a positive number, or 0 for no head"
        )
    options = {option: value for option, value in options.items() if value is not None}
    for option, value in options.items():
        if option not in architecture.options:
            known = ", ".join(architecture.options) or "none"
            raise InputError(f"{option}={value!r}: {name} has no such option; its options: {known}")
        allowed = architecture.options[option]
        if allowed and value not in allowed:
            raise unknown(f"{option} of {name}", value, allowed)
    if "dtype" in options:
        options["dtype"] = _dtype(options["dtype"])
    if not 0 <= options.get("dropout", 0) < 1:
        raise InputError(f"dropout is {options['dropout']}, expected a number in [0, 1)")
    if not 0 <= options.get("stoch_norm", 0) < 1:
        raise InputError(f"stoch_norm is {options['stoch_norm']}, expected a number in [0, 1)")
    if options.get("batch_norm_rows", 0) < 0:
        raise InputError(
            f"batch_norm_rows is {options['batch_norm_rows']}, expected a positive number, or 0 for the whole batch"
        )
    model = architecture.make(num_classes, **options)
    if isinstance(architecture, _Registered):
        check_module(model)
    return model


def _dtype(dtype: Any) -> jnp.dtype:
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return jnp.dtype(name)
