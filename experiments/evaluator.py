"""Whole passes over splits with one compiled evaluation step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tl_jax import evaluation, sharding, steps
from tl_jax.data import Split, stream
from tl_jax.errors import InputError


class Evaluator:
    """Evaluates variables of one model on any split; compiled once for each shape of its inputs.

    Attributes:
        batch_size: global, a multiple of the devices.
    """

    def __init__(
        self,
        forward: Callable,
        transform: Callable[[jax.Array], jax.Array],
        mesh: jax.sharding.Mesh,
        batch_size: int,
        workers: int = 0,
    ):
        """Prepares the step; nothing is compiled yet.

        Args:
            forward: of the network, or of the part after a boundary.
            transform: from what the split holds to what `forward` takes.
            mesh: the devices.
            batch_size: global, rounded up to the devices.
            workers: processes that decode splits larger than memory; 0 for threads.

        Raises:
            InputError: if `batch_size` is below 1.
        """
        if batch_size < 1:
            raise InputError(f"data.eval_batch_size={batch_size}: expected at least 1")
        self._mesh = mesh
        self._workers = workers
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self._step = sharding.compile_eval_step(steps.make_eval_step(forward, transform), mesh)

    def __call__(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> tuple[dict[str, float], np.ndarray]:
        """Returns the metrics of `split` and its logits, float32 [N, K]."""
        rows = sharding.local_rows(self._mesh, self.batch_size)
        batches = stream.eval_batches(split, self.batch_size, rows, workers=self._workers)
        return evaluation.evaluate(self._step, params, batch_stats, batches, len(split))
