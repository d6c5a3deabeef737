"""DELTA's attention: how much the source network misses each channel of a map on the target's images.

Shapes: N images; C channels of a map; F of them at a time; D features before the head; K classes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax.objectives import losses

# By which the authors' code divides standardised increases of the loss before its softmax.
TEMPERATURE = 5.0


def attention_of(increases: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Returns the attention of each channel, which sums to 1: float64 [C].

    It is softmax((d - mean(d)) / (temperature * std(d))) of the increases d of the loss when one channel is
    removed. The paper has softmax(d) itself, which is uniform to within a few thousandths, as one channel of
    hundreds changes a loss little; its code standardises and divides by 5, and so does this.

    Args:
        increases: float [C]; all equal ones give uniform attention.
        temperature: above 0.

    Source: Li et al. 2019, DELTA (arXiv:1901.09229), section 3.3; https://github.com/lixingjian/DELTA, `train.py`,
    where `channel_weights` is filled.

    Example:
        >>> attention_of(np.array([0.0, 0.0, 0.3])).round(4).tolist()
        [0.3022, 0.3022, 0.3956]
    """
    values = np.asarray(increases, np.float64)
    spread = values.std()
    standardised = (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
    powers = np.exp((standardised - standardised.max()) / temperature)
    return powers / powers.sum()


def make_increases(
    suffix: Callable[[Any, Any, jax.Array], jax.Array],
) -> Callable[..., jax.Array]:
    """Returns the pure `increases(params, batch_stats, head, maps, labels, filters) -> float32 [F]`.

    Of each filter: the mean over images of the cross-entropy with that channel of the map set to 0, minus the
    cross-entropy with the map as it is. All else is as in evaluation.

    Its arguments: `head` is (kernel [D, K], bias [K]); `maps` float32 [N, ..., C]; `labels` int32 [N]; `filters`
    int32 [F], the channels that are removed, each by itself.

    Args:
        suffix: `(params, batch_stats, maps) -> float32 [N, D]`, the network from the map to the features before its
            head.
    """

    def per_image(params, batch_stats, head, maps, labels):
        kernel, bias = head
        features = suffix(params, batch_stats, maps).reshape(len(maps), -1)
        logits = jnp.matmul(features, kernel, precision=jax.lax.Precision.HIGHEST) + bias[None, :]
        return losses.cross_entropy(logits, labels)

    def increases(params, batch_stats, head, maps, labels, filters):
        whole = per_image(params, batch_stats, head, maps, labels)
        channels = jnp.arange(maps.shape[-1])

        def without(removed: jax.Array) -> jax.Array:
            kept = jnp.where(channels == removed, 0.0, maps)
            # Image by image: a difference of means would lose what one channel makes.
            return (per_image(params, batch_stats, head, kept, labels) - whole).mean()

        return jax.vmap(without)(filters)

    return increases
