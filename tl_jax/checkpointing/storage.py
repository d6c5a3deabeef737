"""Trees of arrays on disk, by Orbax; the only file that knows it. Importing it takes a quarter of a second."""

import logging
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from tl_jax import trees

# Orbax reports every save in some twenty INFO lines; its warnings and all other records pass.
logging.getLogger("absl").addFilter(
    lambda record: record.levelno >= logging.WARNING or "orbax" not in record.pathname
)


class Storage:
    """An Orbax that works for this process alone.

    Its own barriers leave the other processes waiting when one of them meets a full disk; ours
    (`sharding.together`) do not.
    """

    def __init__(self) -> None:
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        self._orbax = ocp.Checkpointer(handler, multiprocessing_options=alone)

    def save(self, folder: Path, leaves: dict[str, Any]) -> None:
        """Writes {leaf name: array} into a new folder."""
        self._orbax.save(folder, args=ocp.args.PyTreeSave(trees.unflatten(leaves)))

    def read(self, folder: Path, names: list[str]) -> dict[str, np.ndarray]:
        """Returns {leaf name: array}, whatever devices wrote them: numpy knows of no mesh."""
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        arguments = ocp.args.PyTreeRestore(restore_args=trees.unflatten(as_numpy))
        return trees.flatten(self._orbax.restore(folder, args=arguments))

    def close(self) -> None:
        """Releases what Orbax holds."""
        self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
