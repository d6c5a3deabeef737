"""The VGG family: the network, and the table of its architectures.

Shapes: B batch, H and W height and width, C channels, F features of the classifier's input, K classes.

Source: Simonyan and Zisserman 2014 (arXiv 1409.1556), table 1; torchvision `models/vgg.py`, from which the
initialisation and the pooling to 7x7 are taken.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.errors import InputError
from tl_jax.models.batch_norm import BatchNorm
from tl_jax.models.convolution import Convolution
from tl_jax.models.network import check_input, segment
from tl_jax.models.pooling import average_pool_to, max_pool
from tl_jax.models.rematerialisation import REMATS, kept_apart, rematerialised

# The side of the map that the hidden layers take: 224 halved five times.
POOLED_SIDE = 7
HIDDEN_DROPOUT = 0.5
CLASSIFIERS = ("hidden", "pooled")


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ended by a max-pool, and a classifier.

    Attributes:
        stage_sizes: convolutions per stage.
        num_classes: K; 0 for no head.
        batch_norm: whether a BatchNorm follows each convolution (which keeps its bias).
        classifier: "hidden" (pooled to 7x7, flattened, two hidden layers, head) or "pooled" (pooled to one
            pixel, head).
        dropout: share that is dropped in training: after each hidden layer, or of the pooled features.
        width: channels of the first stage, doubled from stage to stage up to eight times as many.
        hidden_width: of both hidden layers.
        dtype: dtype of the computation; parameters and statistics are float32.
        frozen_norms: names of BatchNorm modules that `norm_policy` applies to in training.
        norm_policy: see `BatchNorm`.
        axis_name: named axis over which BatchNorm averages its statistics, None under `jit`.
        batch_norm_rows: examples that BatchNorm normalises together in training; 0 for the whole batch.
        stoch_norm: see `BatchNorm`.
        remat: what the backward pass computes again rather than keeps; see `rematerialised`.
    """

    stage_sizes: tuple[int, ...]
    num_classes: int
    batch_norm: bool = False
    classifier: str = "hidden"
    dropout: float = HIDDEN_DROPOUT
    width: int = 64
    hidden_width: int = 4096
    dtype: jnp.dtype = jnp.dtype("float32")
    frozen_norms: frozenset[str] = frozenset()
    norm_policy: str = "frozen"
    axis_name: str | None = None
    batch_norm_rows: int = 0
    stoch_norm: float = 0.0
    remat: str = ""

    groups = 1  # of its convolutions; see `Network`

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The parts of the network in order: stage1, ..., pool, hidden layers and head where there are any."""
        stages = [f"stage{number}" for number in range(1, len(self.stage_sizes) + 1)]
        hidden = ["hidden"] if self.classifier == "hidden" else []
        return (*stages, "pool", *hidden, *(["head"] if self.num_classes else []))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, start: str | None = None, stop: str | None = None
    ) -> jax.Array:
        """Returns the features after boundary `stop`.

        Args:
            x: normalised images [B, H, W, 3] or the features after boundary `start`; floating point.
            train: whether BatchNorm uses and records the statistics of the batch, for which `batch_stats`
                must be mutable, and whether dropout drops, for which there must be an rng `dropout`.
            start: the boundary whose features `x` is; None for images.
            stop: the boundary to stop after; None for the whole network.

        Returns:
            float32 logits [B, K] after "head", float32 [B, F] after "pool" (a map of 7x7 flattened in the
            order H, W, C where hidden layers follow), [B, hidden_width] after "hidden", else [B, H', W', C];
            these in the model's dtype.

        Raises:
            InputError: if a boundary is unknown, `start` comes after `stop`, `x` is not what the part after
                `start` takes, or images are so small that nothing is left after a stage.
        """
        first, last = segment(self, start, stop)
        spatial = start is None or start.startswith("stage")
        check_input(x, start, self.features(start), spatial=spatial)
        norm = None
        if self.batch_norm:
            norm = functools.partial(
                BatchNorm,
                dtype=self.dtype,
                axis_name=self.axis_name,
                rows=self.batch_norm_rows,
                stoch_norm=self.stoch_norm,
                frozen_norms=self.frozen_norms,
                norm_policy=self.norm_policy,
            )
        for part in self.boundaries[first:last]:
            if part == "pool":
                side = POOLED_SIDE if self.classifier == "hidden" else 1
                x = average_pool_to(x.astype(jnp.float32), side).reshape(len(x), -1)
            elif part == "hidden":
                x = _Hidden(self.hidden_width, self.dropout, self.dtype, name="hidden")(x, train)
            elif part == "head":
                x = x.astype(jnp.float32)
                if self.classifier == "pooled" and self.dropout:
                    x = nn.Dropout(self.dropout)(x, deterministic=not train)
                x = dense(self.num_classes, jnp.dtype("float32"), "head")(x)
            else:
                if min(x.shape[1:3]) < 2:
                    raise InputError(
                        f"VGG: {part} is given a map of {x.shape[1]}x{x.shape[2]} pixels, which cannot be "
                        f"halved; expected images of {2 ** len(self.stage_sizes)} pixels or more "
                        "(data.image_size)"
                    )
                size, width = (
                    self.stage_sizes[int(part.removeprefix("stage")) - 1],
                    self.features(part),
                )
                stage = rematerialised(_Stage, self.remat)
                with kept_apart(self.remat):
                    x = stage(size, width, self.dtype, norm, name=part)(x, train)
        return x

    def features(self, boundary: str | None) -> int:
        """Returns the channels after a boundary; those of an image (3) for None."""
        if boundary is None:
            return 3
        if boundary == "head":
            return self.num_classes
        if boundary == "hidden":
            return self.hidden_width
        if boundary == "pool":
            last = self.features(f"stage{len(self.stage_sizes)}")
            return last * (POOLED_SIDE**2 if self.classifier == "hidden" else 1)
        return self.width * min(2 ** (int(boundary.removeprefix("stage")) - 1), 8)


class _Stage(nn.Module):
    """Convolutions of 3x3, each with a ReLU, and a max-pool: [B, H, W, C] to [B, H // 2, W // 2, width]."""

    size: int
    width: int
    dtype: jnp.dtype
    norm: Callable[..., nn.Module] | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for number in range(1, self.size + 1):
            conv = Convolution(self.width, 3, self.dtype, bias=True, name=f"conv{number}")
            x = nn.relu(
                conv(x) if self.norm is None else self.norm(name=f"bn{number}")(x, train, conv)
            )
        return max_pool(x)


class _Hidden(nn.Module):
    """Two dense layers, each with a ReLU and dropout: [B, F] to [B, width]."""

    width: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for name in ("fc1", "fc2"):
            x = nn.relu(dense(self.width, self.dtype, name)(x))
            if self.dropout:
                x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return x


def dense(features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
    """Returns a dense layer with a normal kernel of standard deviation 0.01 and a bias of 0.

    Source: torchvision's `VGG.__init__`.
    """

    def normal(key, shape, dtype=jnp.float32):
        # Drawn flat: XLA's CPU compiler takes longer over a draw in more dimensions.
        return 0.01 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return nn.Dense(features, dtype=dtype, kernel_init=normal, name=name)


@dataclasses.dataclass(frozen=True)
class VGGArchitecture:
    """What tells one registered VGG from another; see `VGG` for the fields."""

    stage_sizes: tuple[int, ...]
    batch_norm: bool
    width: int = 64
    hidden_width: int = 4096

    naming = "torchvision"

    @property
    def options(self) -> dict[str, tuple[str, ...]]:
        """What may be asked for besides the number of classes; see `registry.Architecture`."""
        options = {"classifier": CLASSIFIERS, "dropout": (), "dtype": (), "remat": REMATS}
        norms = dict.fromkeys(("batch_norm_rows", "stoch_norm"), ()) if self.batch_norm else {}
        return {**norms, **options}

    def make(
        self,
        num_classes: int,
        *,
        classifier: str = "hidden",
        dropout: float | None = None,
        **options: Any,
    ) -> VGG:
        """Returns the module.

        Args:
            num_classes: K.
            classifier: see `VGG`.
            dropout: see `VGG`; None for 0.5 in hidden layers, 0 without these.
            **options: `dtype`, `remat` and, with BatchNorm, `batch_norm_rows` and `stoch_norm` of `VGG`.
        """
        if dropout is None:
            dropout = HIDDEN_DROPOUT if classifier == "hidden" else 0.0
        fields = dataclasses.asdict(self)
        return VGG(
            **fields, num_classes=num_classes, classifier=classifier, dropout=dropout, **options
        )


# Configurations A, B, D and E of the paper.
_STAGE_SIZES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
ARCHITECTURES: dict[str, VGGArchitecture] = {
    **{name: VGGArchitecture(sizes, False) for name, sizes in _STAGE_SIZES.items()},
    **{f"{name}_bn": VGGArchitecture(sizes, True) for name, sizes in _STAGE_SIZES.items()},
}
