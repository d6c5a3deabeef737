"""Whole passes over splits with one compiled evaluation step."""

from typing import Any

import jax
import numpy as np

from tl_jax import evaluation, models, preprocessing, sharding, steps
from tl_jax.data import Split, stream
from tl_jax.errors import InputError


class Evaluator:
    """Evaluates variables of one model on any split; compiled once for each image shape."""

    def __init__(
        self,
        model,
        spec: preprocessing.Preprocessing,
        mesh: jax.sharding.Mesh,
        batch_size: int,
        workers: int = 0,
    ):
        """Prepares the step; nothing is compiled yet.

        Args:
            model: the Linen module.
            spec: its preprocessing.
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
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        forward = models.make_forward(model)
        transform = preprocessing.make_eval_transform(spec)
        self._step = sharding.compile_eval_step(steps.make_eval_step(forward, transform), mesh)

    def __call__(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> tuple[dict[str, float], np.ndarray]:
        """Returns the metrics of `split` and its logits, float32 [N, K]."""
        rows = sharding.local_rows(self._mesh, self._batch_size)
        batches = stream.eval_batches(split, self._batch_size, rows, workers=self._workers)
        return evaluation.evaluate(self._step, params, batch_stats, batches, len(split))
