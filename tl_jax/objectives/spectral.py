"""Batch Spectral Shrinkage: a penalty on the smallest singular values of a batch's features.

B: images in the batch; D: features of an image.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tl_jax.errors import InputError
from tl_jax.objectives.contract import Metrics
from tl_jax.objectives.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class SpectralShrinkage:
    """The sum of the squares of the `k` smallest singular values of the features [B, D] at a boundary.

    The features are those of the whole batch or, with accumulation, of each microbatch. The singular vectors count as
    constants in the derivative, which is the derivative of the sum wherever it has one, and finite everywhere.

    Attributes:
        boundary: whose features; the one before the head in the paper.
        k: how many singular values, at most min(B, D).

    Raises:
        InputError: when called, if there are fewer singular values.

    Source: Chen et al. 2019 (NeurIPS, "Catastrophic forgetting meets negative transfer"), equation 4; its code,
    `tllib/regularization/bss.py` of thuml/Transfer-Learning-Library. The paper's weight is 0.001, its k 1.
    """

    boundary: str
    k: int = 1

    name = "bss"

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The boundary whose features are penalised."""
        return (self.boundary,)

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the sum, float32."""
        features = outputs.features[self.boundary]
        matrix = features.reshape(len(features), -1).astype(jnp.float32)
        count = min(matrix.shape)
        if self.k > count:
            raise InputError(
                f"objective.bss_k={self.k}: features of {matrix.shape[0]} images with {matrix.shape[1]} values have "
                f"{count} singular values; expected at most {count}"
            )
        vectors, _, _ = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=False)
        return jnp.sum(jnp.square(vectors[:, count - self.k :].T @ matrix)), {}
