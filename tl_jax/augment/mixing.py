"""Mixings: random changes of a whole training batch and its targets, by name in a config or as objects.

A mixing is a pure function `(key, images, targets, strength) -> (images, targets)`. It sees the global batch, after
normalisation; for a run on stored activations the activations are what it sees as images.
Shapes: B images or activations [B, ...], K classes; targets are float32 [B, K], the probabilities of the classes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tl_jax.augment.table import Entry, Named, Table
from tl_jax.errors import InputError

Function = Callable[[jax.Array, jax.Array, jax.Array, float], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Mixing(Named):
    """A mixing with its strength; `mixing(key, images, targets)` applies it."""


def mixup(
    key: jax.Array, images: jax.Array, targets: jax.Array, strength: float
) -> tuple[jax.Array, jax.Array]:
    """Returns lambda * one + (1 - lambda) * another, of images and of targets.

    Lambda is one number a batch, drawn from Beta(strength, strength). The partners are a permutation of the
    batch. On activations this is manifold mixup at one fixed layer.

    Source: Zhang et al. 2017 (arXiv:1710.09412), section 2; Verma et al. 2018 (arXiv:1806.05236).
    """
    share, partners = draw_partners(key, len(images), strength)
    return blend(images, partners, share), blend(targets, partners, share)


def cutmix(
    key: jax.Array, images: jax.Array, targets: jax.Array, strength: float
) -> tuple[jax.Array, jax.Array]:
    """Returns images with a box cut out and filled from their partners, and targets mixed by area.

    Lambda is drawn as in mixup. The box, one a batch, has a share of 1 - lambda of the area; its centre is a
    uniform pixel, and what lies outside the image is cut off. The targets are mixed by the area that
    is left.

    Args:
        key: random.
        images: [B, H, W, C]; activations with height and width too.
        targets: [B, K].
        strength: alpha.

    Raises:
        InputError: if images have no height and width.

    Source: Yun et al. 2019 (arXiv:1905.04899), section 3.1 and algorithm A1; rounding as in clovaai/CutMix-PyTorch.
    """
    if images.ndim != 4:
        shape = ", ".join(["B", *map(str, images.shape[1:])])
        raise InputError(
            f"cutmix cuts boxes out of images [B, H, W, C], and is given [{shape}], which has no height and width"
        )
    draw_key, place_key = jax.random.split(key)
    share, partners = draw_partners(draw_key, len(images), strength)
    height, width = images.shape[1:3]
    box = cut_box(share, draw_centre(place_key, height, width), height, width)
    return cut(images, targets, partners, box)


MIXINGS = Table(
    Mixing,
    {
        "mixup": Entry(mixup, "alpha of Beta(alpha, alpha)", "(0, inf)"),
        "cutmix": Entry(cutmix, "alpha of Beta(alpha, alpha)", "(0, inf)"),
    },
)


def register_mixing(
    name: str,
    function: Function,
    strength: str = "",
    within: str = "[0, inf)",
    *,
    replace: bool = False,
) -> None:
    """Makes `NAME=STRENGTH` a mixing of `augment.mixing` in a config.

    Args:
        name: none of ours.
        function: `(key, images, targets, strength) -> (images, targets)`; see the top of this file.
        strength: what the strength means, in one line.
        within: the interval of the strength, such as "(0, inf)".
        replace: whether it takes the place of another mixing of that name, registered before.

    Raises:
        InputError: if the name is taken or cannot be written in a config.
    """
    MIXINGS.register(name, function, strength, within, replace=replace)


def make_mixing(
    mixings: Sequence[Mixing], num_classes: int
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None:
    """Returns `mix(key, images, labels) -> (images, targets)` of a training step; None without mixings.

    Of several mixings one is drawn for each update, each with the same probability. Labels are int32 [B].
    """
    if not mixings:
        return None

    def mix(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
        if len(mixings) == 1:
            return mixings[0](key, images, targets)
        choice_key, mixing_key = jax.random.split(key)
        choice = jax.random.randint(choice_key, (), 0, len(mixings))
        return jax.lax.switch(choice, list(mixings), mixing_key, images, targets)

    return mix


def check_mixing(mixing: Mixing, batch_size: int, shape: tuple[int, ...], num_classes: int) -> None:
    """Traces a mixing on the shapes of a batch; nothing is computed.

    Args:
        mixing: to check.
        batch_size: B.
        shape: of one image or activation.
        num_classes: K.

    Raises:
        InputError: if it fails, or returns anything but images and targets of the shapes it was given.
    """
    images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    targets = jax.ShapeDtypeStruct((batch_size, num_classes), jnp.float32)
    wanted = (
        "expected (key, images, targets, strength) -> (images, targets), float32 "
        f"{list(images.shape)} and {list(targets.shape)}"
    )
    try:
        made = jax.eval_shape(
            lambda key, images, targets: mixing(key, images, targets),
            jax.random.key(0),
            images,
            targets,
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"mixing {mixing} fails: {error}; {wanted}") from error
    pair = made if isinstance(made, tuple) and len(made) == 2 else ()
    found = [(getattr(one, "shape", None), getattr(one, "dtype", None)) for one in pair]
    if found != [(one.shape, one.dtype) for one in (images, targets)]:
        raise InputError(f"mixing {mixing} returns {made}; {wanted}")


def draw_partners(key: jax.Array, batch_size: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Returns lambda, from Beta(alpha, alpha), and a permutation of the batch, int [B]."""
    share_key, partner_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)
    return share, jax.random.permutation(partner_key, batch_size)


def blend(rows: jax.Array, partners: jax.Array, share: jax.Array | float) -> jax.Array:
    """Returns share * rows + (1 - share) * rows[partners], of [B, ...]."""
    return share * rows + (1 - share) * rows[partners]


def draw_centre(key: jax.Array, height: int, width: int) -> jax.Array:
    """Returns int32 (row, column), uniform over the pixels."""
    return jax.random.randint(key, (2,), 0, jnp.array([height, width]))


def cut_box(share: jax.Array | float, centre: jax.Array, height: int, width: int) -> jax.Array:
    """Returns int32 [2, 2]: first and one past the last row, the same of columns.

    The sides are sqrt(1 - share) of the image's, rounded down to an even number of pixels.
    """
    sides = jnp.array([height, width])
    half = jnp.floor(0.5 * jnp.sqrt(1 - share) * sides.astype(jnp.float32)).astype(jnp.int32)
    return jnp.clip(jnp.stack([centre - half, centre + half], axis=1), 0, sides[:, None])


def cut(
    images: jax.Array, targets: jax.Array, partners: jax.Array, box: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns images with the pixels of `box` taken from their partners, and the targets mixed by area."""
    height, width = images.shape[1:3]
    (top, bottom), (left, right) = box
    row, column = jnp.arange(height), jnp.arange(width)
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = (rows[:, None] & columns[None, :])[None, :, :, None]
    area = ((bottom - top) * (right - left)).astype(jnp.float32)
    mixed = jnp.where(inside, images[partners], images)
    return mixed, blend(targets, partners, 1 - area / (height * width))
