"""What an objective sees of one training batch.

B: images in the batch; K: classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reference:
    """What a frozen network computes on the same batch; no gradient passes through it.

    Attributes:
        logits: float32 [B, K] with the K of that network; None where no objective asks for them. Of the source under
            init.head=reset, K are the classes that its weights were trained with, not those of the data.
        features: {boundary: float32 [B, ...]}, of the boundaries that were asked for.
        params: nested dict of float32 arrays; None where no objective asks for them.
        relationship: of the source, float32 [C, K]: the probability of each of its K classes, given each of the C
            classes of the data; see `relationship`. None where no objective asks for it.
    """

    logits: jax.Array | None = None
    features: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)
    params: Mapping[str, Any] | None = None
    relationship: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What the trained network computes on a batch, and what it is compared with.

    Attributes:
        logits: float32 [B, K].
        labels: int32 [B] in [0, K); None after a mixing, where `targets` hold several classes.
        soft_targets: float32 [B, K] after a mixing, rows that sum to 1; else None. See `targets`.
        features: {boundary: float32 [B, ...]}, of the boundaries that objectives ask for.
        params: of the network, nested dict of float32 arrays; under a cache those after its boundary.
        own: parameters of the objectives' own, {group: nested dict of float32 arrays}; see `Objective`.
        source: the network that the run started from; None where no objective asks for it.
        teacher: the network of another run; None where there is none.
    """

    logits: jax.Array
    labels: jax.Array | None
    soft_targets: jax.Array | None = None
    features: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Reference | None = None
    teacher: Reference | None = None

    @property
    def targets(self) -> jax.Array:
        """The probabilities of the classes, float32 [B, K]: those of a mixing, or 1 on the label."""
        if self.soft_targets is not None:
            return self.soft_targets
        return jax.nn.one_hot(self.labels, self.logits.shape[-1], dtype=jnp.float32)

    def accuracy(self) -> jax.Array:
        """Returns the share of rows whose most probable class is the label, or the largest target."""
        wanted = self.labels if self.labels is not None else self.targets.argmax(-1)
        return (self.logits.argmax(-1) == wanted).astype(jnp.float32).mean()
