"""64 linear probes as one program against 64 one after the other, on the same stored features.

    python -m benchmarks.sweep --data_dir=DIR [--epochs=10] [--small] [--out=sweep.json]

Two comparisons, both with the features in place and every program compiled once before the clock starts:

- `runs`: ordinary runs (`tl_jax.runs.training.run`, as `experiments.compare` makes them: checkpoints, metrics,
  evaluation each epoch, predictions) one after the other in one process, against one `experiments.sweep`,
  from prepared features to the chosen member's test accuracy. `--runs=N` of the 64 are timed and scaled up.
- `updates`: nothing but the updates, several in a dispatch: the program of one member run 64 times against
  that of all members, warm. Also how far a member's parameters are from those of its solo run; and, since a
  rate beyond what is stable makes any rounding grow, how far the solo run is from itself when its initial
  parameters are multiplied by 1 + 2^-23.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import operator
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from configs import cifar10_sweep, digits_sweep
from tl_jax.runs import activation_cache, members, sweep, training
from tl_jax.runs.setup import Setup, prepare
from tl_jax.training import vmapped


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="", help="of the prepared CIFAR-10")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=8, help="ordinary runs that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="of the updates alone")
    parser.add_argument("--small", action="store_true", help="handwritten digits, 8 members")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    config = make_config(args)
    with tempfile.TemporaryDirectory() as scratch:
        # As the commands do: the sequential runs then compile once, not 64 times.
        jax.config.update("jax_compilation_cache_dir", f"{scratch}/xla")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        result = {
            "epochs": args.epochs,
            **measure(config, pathlib.Path(scratch), args.runs, args.repeats),
        }
    recording.write(result)


def make_config(args: argparse.Namespace):
    """Returns the config of the sweep; no member stops early, so that all do the same work."""
    config = (digits_sweep if args.small else cifar10_sweep).get_config()
    if args.small:
        config.sweep.learning_rate, config.sweep.weight_decay = (0.1, 0.3), (0.0, 1e-3)
        config.sweep.seed = (0, 1)
    config.data.data_dir = args.data_dir
    config.train.epochs = args.epochs
    config.sweep.patience = 0
    config.report.html = False
    config.report.tensorboard = False
    return config


def measure(config, scratch: pathlib.Path, runs: int, repeats: int) -> dict:
    """Returns the seconds of both comparisons and the largest difference of a parameter."""
    grid = sweep.read_grid(config)
    with quiet():
        setup = activation_cache.use(prepare(sweep._run_config(config)))
        sweep.run(config, scratch / "warm")  # Compiles, and stores the features.
        seconds, _ = timed(lambda: sweep.run(config, scratch / "sweep"))
        cells = cells_of(config, grid)
        training.run(cells[0], scratch / "warm_run")
        chosen = cells[:: max(1, len(cells) // runs)][:runs]
        alone = [
            # Each in a separate folder: a finished one would only say so.
            timed(lambda cell=cell, i=i: training.run(cell, scratch / f"run{i}"))[0]
            for i, cell in enumerate(chosen)
        ]
        updates = measure_updates(setup, grid, repeats)
    return {
        "members": len(grid),
        "updates_per_member": setup.total_steps,
        "train_examples": len(setup.splits["train"]),
        "runs": {
            "sweep_seconds": seconds,
            "one_run_seconds": statistics.median(alone),
            "runs_timed": len(alone),
            "sequential_seconds": statistics.fmean(alone) * len(grid),
            "ratio": statistics.fmean(alone) * len(grid) / seconds,
        },
        "updates": updates,
    }


def cells_of(config, grid: members.Grid) -> list:
    """Returns the configs of the ordinary runs that the members stand for."""
    cells = []
    for seed, values in itertools.product(grid.seeds, grid.combinations):
        cell = sweep._run_config(config)
        cell.seed = seed
        for name, value in values.items():
            cell.optim[name] = value
        cells.append(cell)
    return cells


def measure_updates(setup: Setup, grid: members.Grid, repeats: int) -> dict:
    """Returns the seconds of all updates of all members, together and one member after the other."""
    states = [members.start(setup, grid, seed)[0] for seed in grid.seeds]
    params = states[0].params
    split = setup.inputs["train"]
    examples = (jax.device_put(split.activations[:, 0]), jax.device_put(split.labels))
    total = setup.total_steps
    rows = {
        seed: np.stack(
            [dataclasses.replace(setup.order, seed=seed).rows(step) for step in range(total)]
        ).astype(np.int32)
        for seed in grid.seeds
    }

    def solo_program(values):
        fixed = members.Grid({n: (v,) for n, v in values.items()}, grid.seeds, 0, 0, "chosen")
        # Numbers, as in an ordinary run: no field is data of this program.
        step = members.make_train_step(setup, fixed, params)(values)

        def updates(state, inputs, labels, rows):
            def body(state, batch_rows):
                state, measured = step(state, vmapped._gather((inputs, labels), batch_rows))
                return state, measured

            return jax.lax.scan(body, state, rows)

        return jax.jit(updates)

    group = vmapped._Group(
        members.make_train_step(setup, grid, params),
        lambda params, batch_stats, batch: ({}, None),
        vmapped.Schedule(total, updates_per_dispatch=total),
        vmapped.Data(
            examples,
            lambda seed, step: rows[seed][step],
            (np.asarray(examples[0][:1]), split.labels[:1]),
            1,
        ),
    )
    scalars = {
        name: jnp.asarray([of[name] for of in grid.combinations], jnp.float32)
        for name in grid.swept
    }
    block = np.stack([rows[seed] for seed in grid.seeds], axis=1)
    together, programs = [], {}
    for _ in range(repeats + 1):
        begun = vmapped._start(states, len(grid.combinations))
        seconds, trained = timed(
            lambda begun=begun: group._update(begun, scalars, examples, block, np.int32(total))
        )
        together.append(seconds)
    solo, compared = [], []
    for (row, seed), (column, values) in itertools.product(
        enumerate(grid.seeds), enumerate(grid.combinations)
    ):
        program = programs.setdefault(column, solo_program(values))

        def alone(state, program=program, seed=seed):
            return timed(lambda: program(state, *examples, rows[seed]))

        first = alone(states[row])[1][0].params  # Compiled by now.
        solo.append(alone(states[row])[0])
        member = jax.tree.map(operator.itemgetter((row, column)), trained.state.params)
        nudged = jax.tree.map(lambda leaf: leaf * (1 + 2**-23), states[row].params)
        compared.append(
            {
                **values,
                "seed": seed,
                "largest_difference": largest_difference(first, member),
                "after_a_rounding_of_the_start": largest_difference(
                    first, alone(states[row].replace(params=nudged))[1][0].params
                ),
            }
        )
    all_together, one = statistics.median(together[1:]), statistics.median(solo)
    return {
        "together_seconds": all_together,
        "solo_seconds": one,
        "sequential_seconds": one * len(grid),
        "ratio": one * len(grid) / all_together,
        "largest_difference": max(member["largest_difference"] for member in compared),
        "compared": compared,
    }


def largest_difference(a, b) -> float:
    """Returns the largest difference between two trees of parameters."""
    return max(
        float(jnp.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def timed(function):
    """Returns the seconds that a call took, its arrays waited for, and what it returned."""
    began = time.perf_counter()
    result = function()
    jax.block_until_ready([leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)])
    return time.perf_counter() - began, result


@contextlib.contextmanager
def quiet():
    """Keeps what the commands print to themselves."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
