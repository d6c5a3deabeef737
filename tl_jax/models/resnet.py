"""The residual network that every registered model is an instance of."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.errors import InputError, unknown
from tl_jax.models.batch_norm import BatchNorm
from tl_jax.models.blocks import BLOCKS, Stage, Stem
from tl_jax.models.rematerialisation import kept_apart, rematerialised


class ResNet(nn.Module):
    """A residual network that can be entered and left at any boundary.

    Shapes: B batch, H and W height and width, C channels, F pooled features, K classes.

    Attributes:
        stage_sizes: blocks per stage.
        block: "basic" or "bottleneck".
        num_classes: K; 0 for no head, the network then ends with "pool".
        stem_kind: "imagenet" or "cifar".
        width: channels of the stem, doubled (as planes) from stage to stage.
        groups: groups of the bottleneck's 3x3 convolution.
        base_width: channels of that convolution per group and 64 planes.
        shortcut: "projection" or "pad" (options B and A of He et al. 2015).
        zero_init_residual: whether every block starts as the identity.
        dtype: dtype of the computation; parameters and statistics are float32.
        frozen_norms: names of BatchNorm modules that `norm_policy` applies to in training.
        norm_policy: see `BatchNorm`.
        axis_name: named axis over which BatchNorm averages its statistics, None under `jit`.
        remat: what the backward pass computes again rather than keeps; see `rematerialised`.

    Source: He et al. 2015 (arXiv 1512.03385); torchvision `models/resnet.py`, v1.5 bottlenecks.
    """

    stage_sizes: tuple[int, ...]
    block: str
    num_classes: int
    stem_kind: str = "imagenet"
    width: int = 64
    groups: int = 1
    base_width: int = 64
    shortcut: str = "projection"
    zero_init_residual: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")
    frozen_norms: frozenset[str] = frozenset()
    norm_policy: str = "frozen"
    axis_name: str | None = None
    remat: str = ""

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The parts of the network in order: stem, stage1, ..., pool, and head if there is one."""
        stages = [f"stage{number}" for number in range(1, len(self.stage_sizes) + 1)]
        return ("stem", *stages, "pool", *(["head"] if self.num_classes else []))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, start: str | None = None, stop: str | None = None
    ) -> jax.Array:
        """Returns the features after boundary `stop`.

        Args:
            x: normalised images [B, H, W, 3] or the features after boundary `start`; floating
                point.
            train: whether BatchNorm uses and records the statistics of the batch; `batch_stats`
                must then be mutable.
            start: the boundary whose features `x` is; None for images.
            stop: the boundary to stop after; None for the whole network.

        Returns:
            float32 logits [B, K] after "head", float32 [B, F] after "pool", else [B, H', W', C] in
            the model's dtype.

        Raises:
            InputError: if a boundary is unknown, `start` comes after `stop`, or `x` is not what the
                part after `start` takes.
        """
        first, last = self.segment(start, stop)
        self._check_input(x, start)
        norm = functools.partial(
            BatchNorm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            frozen_norms=self.frozen_norms,
            norm_policy=self.norm_policy,
        )
        for part in self.boundaries[first:last]:
            if part == "stem":
                x = Stem(self.stem_kind, self.width, self.dtype, norm, name="stem")(x, train)
            elif part == "pool":
                x = x.astype(jnp.float32).mean((1, 2))
            elif part == "head":
                x = _head(self.num_classes, x.shape[-1])(x.astype(jnp.float32))
            else:
                stage = self._stage(int(part.removeprefix("stage")) - 1, norm)
                with kept_apart(self.remat):
                    x = stage(x, train)
        return x

    def segment(self, start: str | None, stop: str | None) -> tuple[int, int]:
        """Returns the slice of `boundaries` to run between two boundaries.

        Raises:
            InputError: if a boundary is unknown, or `start` comes after `stop`.
        """
        for boundary in (start, stop):
            if boundary is not None and boundary not in self.boundaries:
                raise unknown("boundary", boundary, self.boundaries)
        first = 0 if start is None else self.boundaries.index(start) + 1
        last = len(self.boundaries) if stop is None else self.boundaries.index(stop) + 1
        if first > last:
            raise InputError(
                f"start {start!r} comes after stop {stop!r}; order: {', '.join(self.boundaries)}"
            )
        return first, last

    def features(self, boundary: str | None) -> int:
        """Returns the channels after a boundary; those of an image (3) for None."""
        if boundary is None:
            return 3
        if boundary == "stem":
            return self.width
        if boundary == "head":
            return self.num_classes
        stage = len(self.stage_sizes) if boundary == "pool" else int(boundary.removeprefix("stage"))
        return self.width * 2 ** (stage - 1) * BLOCKS[self.block].expansion

    def _stage(self, index: int, norm) -> Stage:
        blocks = functools.partial(
            rematerialised(BLOCKS[self.block], self.remat),
            planes=self.width * 2**index,
            shortcut=self.shortcut,
            groups=self.groups,
            base_width=self.base_width,
            zero_init_residual=self.zero_init_residual,
            dtype=self.dtype,
            norm=norm,
        )
        stride = 1 if index == 0 else 2
        return Stage(blocks, self.stage_sizes[index], stride, name=f"stage{index + 1}")

    def _check_input(self, x: jax.Array, start: str | None) -> None:
        what = "images" if start is None else f"features after {start!r}"
        axes = ("B",) if start in ("pool", "head") else ("B", "H", "W")
        channels = self.features(start)
        if x.ndim != len(axes) + 1 or x.shape[-1] != channels:
            raise InputError(
                f"{what} have shape {tuple(x.shape)}, expected [{', '.join(axes)}, {channels}]"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(f"{what} have dtype {x.dtype}, expected floating point (normalised)")


def _head(num_classes: int, features: int) -> nn.Dense:
    """Returns the linear classifier, in float32 whatever the dtype of the backbone.

    Source: `torch.nn.Linear`: kernel and bias uniform in ±1 / sqrt(features).
    """
    bound = features**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return nn.Dense(num_classes, kernel_init=uniform, bias_init=uniform, name="head")
