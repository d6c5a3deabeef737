"""The phases of a run in progress: which of them a step belongs to, and what each was, took and proved."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import freezing, trees
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.training.state import TrainState

PHASES_FILE = "phases.json"  # in the folder of a run of several phases

_DIGESTS = "frozen_digests"


def number_at(phases: Sequence[Setup], step: int) -> int:
    """Returns the number, from 0, of the phase of a state after `step` updates: the end of a phase belongs to it."""
    inside = (number for number, setup in enumerate(phases) if step <= setup.total_steps)
    return next(inside, len(phases) - 1)


def template_at(phases: Sequence[Setup], step: int) -> TrainState:
    """Returns shapes and placement of a state after `step` updates: the optimizer's state is that of the phase."""
    setup = phases[number_at(phases, step)]
    whole = sharding.replicated(setup.mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        setup.state_shapes,
    )


def trainable_parameters(setup: Setup) -> int:
    """Returns how many scalars a phase trains."""
    frozen = trees.flatten(setup.optimisation.frozen_mask)
    leaves = trees.flatten(setup.state_shapes.params)
    return sum(int(np.prod(leaf.shape)) for name, leaf in leaves.items() if not frozen[name])


class PhaseRecords:
    """A row for each phase, with the digests of what is frozen as it was at the start of the phase.

    Those of several phases are kept in `phases.json`, so that a phase that is interrupted proves at its end
    what one that never was proves. The folder of a run of one phase has no such file.

    Args:
        config: of the run.
        phases: of the run.
        folder: of the run.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, phases: Sequence[Setup], folder: RunFolder
    ):
        self._config, self._phases, self._folder = config, phases, folder
        self._rows: list[dict[str, Any]] = []
        path = folder.path / PHASES_FILE
        if len(phases) > 1 and path.is_file():
            try:
                self._rows = json.loads(path.read_text())
            except ValueError as error:
                raise InputError(f"{path} is no JSON ({error}); it is left as it is") from error

    @property
    def setups(self) -> tuple[Setup, ...]:
        """The phases."""
        return tuple(self._phases)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What `result.json` holds of the phases."""
        return [
            {name: value for name, value in row.items() if name != _DIGESTS} for row in self._rows
        ]

    def seconds_before(self, number: int) -> float:
        """Returns the seconds that the phases before a phase took."""
        return sum(row.get("seconds", 0.0) for row in self._rows[:number])

    def begin(self, number: int, setup: Setup, dispatch: dict[str, Any]) -> None:
        """Notes the start of a phase, before its first update.

        Args:
            number: of the phase, from 0.
            setup: of the phase, with the variables at its start.
            dispatch: how its updates reach the devices; {} where none are made.
        """
        cache = setup.cache
        row = {
            "phase": number + 1,
            "assignments": list(self._config.phases[number]) if self._config.phases else [],
            "first_step": setup.first_step,
            "last_step": setup.total_steps,
            "trainable": trainable_parameters(setup),
            "cache": cache and {name: cache[name] for name in ("boundary", "storage", "seconds")},
            "dispatch": dispatch,
            _DIGESTS: freezing.digests(
                setup.variables,
                setup.optimisation.frozen_mask,
                setup.optimisation.frozen_norms,
                setup.config.freeze.batch_norm,
            ),
        }
        self._rows = [*self._rows[:number], row]
        self._write()

    def check_begun(self, number: int) -> None:
        """Raises InputError unless the start of a phase, which is to go on, was noted."""
        if number >= len(self._rows):
            raise InputError(
                f"{self._folder.path / PHASES_FILE} does not hold the start of phase {number + 1}, so that what "
                "is frozen in it cannot be compared with its start; put the file back, or give a new --workdir"
            )

    def finish(self, number: int, state: TrainState, seconds: float) -> dict[str, Any]:
        """Compares what was frozen with the start of the phase; returns the row of the phase.

        Args:
            number: of the phase, from 0.
            state: at its end.
            seconds: that the run took up to here.
        """
        row = self._rows[number]
        row["seconds"] = seconds - self.seconds_before(number)
        row["last_step"] = int(state.step)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        row["frozen"] = freezing.verify_digests(row[_DIGESTS], variables)
        self._write()
        return row

    def frozen(self, step: int, variables: dict[str, Any]) -> dict[str, Any]:
        """Returns what all phases proved, as `freezing.verify_unchanged`, and the state that is reported on.

        Args:
            step: completed updates of that state.
            variables: its params and batch_stats.

        Returns:
            `changed`, and how many leaves and statistics were frozen in a phase or more.
        """
        chosen = number_at(self._phases, step)
        found = [(number, row["frozen"]) for number, row in enumerate(self._rows)]
        found.append((chosen, freezing.verify_digests(self._rows[chosen][_DIGESTS], variables)))
        several = len(self._rows) > 1
        changed = {
            f"{name} in phase {number + 1}" if several else name
            for number, frozen in found
            for name in frozen["changed"]
        }
        return {**_counted(self._rows), "changed": sorted(changed)}

    def _write(self) -> None:
        if len(self._phases) > 1:
            self._folder.write_json(PHASES_FILE, self._rows)


def _counted(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Returns how many leaves and statistics were frozen in any of these phases."""
    names = {name for row in rows for name in row[_DIGESTS]}
    leaves = sum(name.startswith("params/") for name in names)
    return {"frozen_leaves": leaves, "frozen_statistics": len(names) - leaves}
