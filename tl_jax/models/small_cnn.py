"""The small convolutional network of many tutorials: two convolutions, each with a max-pool, and a dense layer.

Shapes: B batch, H and W height and width, C channels, F features of the dense layer's input, K classes.

Source: TensorFlow's tutorial "Convolutional Neural Network (CNN)" and its kin, which have no padding; here every
convolution is padded, so that a map of H x W pixels stays one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.errors import InputError
from tl_jax.models.convolution import Convolution
from tl_jax.models.network import check_input, segment
from tl_jax.models.pooling import max_pool


class SmallCNN(nn.Module):
    """Stages of one 3x3 convolution, ReLU and max-pool; a dense layer with ReLU; the head.

    The dense layer has a kernel [H / 2**S * W / 2**S * C, hidden_width] after S stages: its parameters fit one size
    of images only.

    Attributes:
        num_classes: K; 0 for no head.
        widths: channels of each stage.
        hidden_width: of the dense layer.
        dropout: share of the dense layer's features that is dropped in training before the head.
        dtype: dtype of the computation; parameters are float32.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64)
    hidden_width: int = 64
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    groups = 1  # of its convolutions; see `Network`

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The parts of the network in order: stage1, stage2, hidden and, unless K is 0, head."""
        stages = [f"stage{number}" for number in range(1, len(self.widths) + 1)]
        return (*stages, "hidden", *(["head"] if self.num_classes else []))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, start: str | None = None, stop: str | None = None
    ) -> jax.Array:
        """Returns the features after boundary `stop`.

        Args:
            x: normalised images [B, H, W, 3] or the features after boundary `start`; floating point.
            train: whether dropout drops, for which there must be an rng `dropout`.
            start: the boundary whose features `x` is; None for images.
            stop: the boundary to stop after; None for the whole network.

        Returns:
            float32 logits [B, K] after "head", [B, hidden_width] after "hidden", else [B, H', W', C]; these
            in the model's dtype.

        Raises:
            InputError: if a boundary is unknown, `start` comes after `stop`, `x` is not what the part after
                `start` takes, or images are so small that nothing is left after a stage.
        """
        first, last = segment(self, start, stop)
        spatial = start is None or start.startswith("stage")
        check_input(x, start, self.features(start), spatial=spatial)
        for part in self.boundaries[first:last]:
            if part == "head":
                x = x.astype(jnp.float32)
                if self.dropout:
                    x = nn.Dropout(self.dropout)(x, deterministic=not train)
                x = nn.Dense(self.num_classes, name=part)(x)
            elif part == "hidden":
                x = _Hidden(self.hidden_width, self.dtype, name=part)(x.reshape(len(x), -1))
            else:
                if min(x.shape[1:3]) < 2:
                    raise InputError(
                        f"small_cnn: {part} is given a map of {x.shape[1]}x{x.shape[2]} pixels, which cannot be "
                        f"halved; expected images of {2 ** len(self.widths)} pixels or more (data.image_size)"
                    )
                x = _Stage(self.features(part), self.dtype, name=part)(x)
        return x

    def features(self, boundary: str | None) -> int:
        """Returns the channels after a boundary; those of an image (3) for None."""
        if boundary is None:
            return 3
        if boundary == "head":
            return self.num_classes
        if boundary == "hidden":
            return self.hidden_width
        return self.widths[int(boundary.removeprefix("stage")) - 1]


class _Stage(nn.Module):
    """A 3x3 convolution, ReLU and max-pool: [B, H, W, C] to [B, H // 2, W // 2, width]."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Convolution(self.width, 3, self.dtype, bias=True, name="conv")(x)
        return max_pool(nn.relu(x))


class _Hidden(nn.Module):
    """A dense layer with ReLU: [B, F] to [B, width]."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(nn.Dense(self.width, dtype=self.dtype, name="fc")(x))


@dataclasses.dataclass(frozen=True)
class SmallCNNArchitecture:
    """The registered one; see `SmallCNN` for the fields."""

    widths: tuple[int, ...] = (32, 64)
    hidden_width: int = 64

    naming = "tl_jax"

    @property
    def options(self) -> dict[str, tuple[str, ...]]:
        """What may be asked for besides the number of classes; see `registry.Architecture`."""
        return {"dropout": (), "dtype": ()}

    def make(self, num_classes: int, **options: Any) -> SmallCNN:
        """Returns the module.

        Args:
            num_classes: K.
            **options: `dropout` and `dtype` of `SmallCNN`.
        """
        return SmallCNN(num_classes, **dataclasses.asdict(self), **options)


ARCHITECTURES: dict[str, SmallCNNArchitecture] = {"small_cnn": SmallCNNArchitecture()}
