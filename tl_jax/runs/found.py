"""What a run comes to without updates of its own: found once, and kept.

It is kept in a checkpoint of step 0 and in a file of the run's folder: a run that was sealed, or stopped after that,
goes on with it, one that was stopped before begins again.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from tl_jax import console, reporting
from tl_jax.checkpointing import Checkpointer
from tl_jax.runs import activation_cache, selection
from tl_jax.runs.phases import PhaseRecords, template_at
from tl_jax.runs.recording import Callback
from tl_jax.runs.run_folder import RunFolder, read_json
from tl_jax.runs.setup import Setup
from tl_jax.runs.updates import Prepared, Trained
from tl_jax.training import loops
from tl_jax.training.state import TrainState

# From the run to its state, what the file says of it ("selection" is a sentence, "by_validation" whether validation
# chose among several), and the metrics of the state by split.
Compute = Callable[[Setup], tuple[TrainState, dict[str, Any], dict[str, dict[str, float]]]]


def once(
    name: str,
    prepared: Prepared,
    folder: RunFolder,
    compute: Compute,
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Returns what a run came to, computed now or found in its folder.

    Args:
        name: of the file, without its ending, and of what `result.json` says of it.
        prepared: the run, of one phase.
        folder: of the run.
        compute: finds the state.
        stop_requested: whether to stop.
        callbacks: called with (0, split, metrics).

    Raises:
        loops.Stopped: when asked to, before it is found.
    """
    (setup,) = prepared.phases
    # Made for one update, and without any.
    setup = dataclasses.replace(
        setup, intervals=dataclasses.replace(setup.intervals, total_steps=0)
    )
    began = time.perf_counter()
    records = PhaseRecords(prepared.config, (setup,), folder)
    metric, mode = selection.metric_and_mode(setup.config)
    with Checkpointer(folder.checkpoints, best_metric=metric, best_mode=mode) as checkpointer:
        path = folder.path / f"{name}.json"
        found = read_json(path) if path.is_file() else None
        state = None
        if found is not None:
            state = checkpointer.restore_latest(functools.partial(template_at, (setup,)))
        setup = activation_cache.use(setup, stop_requested)
        storing = setup.cache["seconds"] if setup.cache is not None else 0.0
        records.begin(0, setup, {})
        if stop_requested():
            raise loops.Stopped(0)
        if found is None or state is None:
            state, found, measured = compute(setup)
            found = {**found, "seconds": time.perf_counter() - began}
            checkpointer.save(state, measured.get("validation"))
            checkpointer.wait()
            _record(setup, folder, measured, callbacks, found["seconds"])
            # Last: it says that all of it is there.
            folder.write_json(path.name, found)
        console.say(f"{name}: {found['selection']}")
    records.finish(0, state, found["seconds"])
    return Trained(
        setup, state, 0, records, found["seconds"], storing, None, None, {}, 0, found={name: found}
    )


def _record(
    setup: Setup,
    folder: RunFolder,
    measured: dict[str, dict[str, float]],
    callbacks: Sequence[Callback],
    seconds: float,
) -> None:
    """Writes the metrics of the state, those of step 0, and tells the callbacks."""
    with reporting.MetricWriter(folder.path, tensorboard=setup.config.report.tensorboard) as writer:
        for split, metrics in measured.items():
            writer.write(0, split, {**metrics, "seconds": seconds})
            for callback in callbacks:
                callback(0, split, dict(metrics))
