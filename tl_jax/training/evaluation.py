"""One whole pass over a split: every example counts once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from tl_jax.training import metrics

# Bounds the batches and logits held on the device; unblocked loops over several forced host devices also abort in
# jaxlib 0.10 (rendezvous timeout).
BATCHES_IN_FLIGHT = 8


def evaluate(
    eval_step: Callable,
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    batches: Iterable[dict[str, np.ndarray]],
    num_examples: int,
) -> tuple[dict[str, float], np.ndarray]:
    """Returns the metrics of a split and its logits, float32 [N, K], in the order of the split.

    Args:
        eval_step: compiled `(params, batch_stats, host batch) -> (sums, logits [B, K])`.
        params: of the model.
        batch_stats: of the model; not changed.
        batches: host batches of `image`, `label` and `mask`; the last one padded, its padding
            masked.
        num_examples: N, which the masks must add up to.
    """
    sums, logits = [], []
    for batch in batches:
        batch_sums, batch_logits = eval_step(params, batch_stats, batch)
        sums.append(batch_sums)
        logits.append(batch_logits)
        if len(sums) > BATCHES_IN_FLIGHT:
            logits[-BATCHES_IN_FLIGHT] = np.asarray(logits[-BATCHES_IN_FLIGHT])
    stacked = jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *sums)
    return measured(stacked, num_examples), together(logits, num_examples)


def measured(sums: dict[str, np.ndarray], num_examples: int) -> dict[str, Any]:
    """Returns the metrics of a split from the sums of its batches, each [M, ...]."""
    result = metrics.finalize(jax.tree.map(lambda parts: np.sum(parts, 0), sums))
    assert result["examples"] == num_examples, (result["examples"], num_examples)
    return result


def together(logits: Sequence[Any], num_examples: int) -> np.ndarray:
    """Returns the logits of batches as those of the split, float32 [N, K], fetched from the devices."""
    return np.concatenate([np.asarray(part) for part in logits])[:num_examples]
