"""Images a second through training steps and forward passes: this library, and PyTorch, in turn in one process.

    python -m benchmarks.throughput --out=FILE
    python -m benchmarks.throughput --rows='resnet50/*' --sides jax jax_native
    python -m benchmarks.throughput --rows='resnet50/*' --precision=bfloat16 --compile_mode=max-autotune

The sides run the same network from the same weights on the same uint8 batch, already on the device and normalised
there:

    jax            this library as runs compile it
    jax_native     the same, with the gradients of convolutions that JAX derives instead of those of
                   tl_jax/models/convolution.py; on other devices than CPUs both are the same
    torch_eager    PyTorch (benchmarks/throughput_torch.py)
    torch_compile  PyTorch through `torch.compile`

PyTorch is imported only where one of its sides is asked for: `--sides jax` measures ours alone in its process.

Logits and the loss of the first step must agree between the sides before a row is timed. Rounds then go through the
sides in turn. A turn begins with an extra step, since the sides take each other's caches and memory pages; it is
recorded apart ("milliseconds_first_of_turn"). Then the step is repeated until it has taken its share of --seconds,
at least once. CPU time (the part of the kernel apart) and page faults of the process are recorded beside wall time:
they tell a slow step from one that waited, and a step that computes from one that allocates its memory again.

A row already in --out is skipped unless --again is given, so that a long run can be made in pieces; unless, that is,
other processes took more than a twentieth of the cores while it was timed ("busy_elsewhere"), for the sides share the
work over all cores, and lose unequally by it.
"""

import argparse
import fnmatch
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import record, rounds, throughput_sides
from benchmarks.networks import NETWORKS, ROWS
from benchmarks.throughput_sides import Side
from tl_jax import reporting

# Of the largest logit, and of the loss: rounding of another order of summation.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
MOST_BUSY = 0.05
SIDES = ("jax", "jax_native", "torch_eager", "torch_compile")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def main() -> None:
    """Measures the rows asked for and writes the JSON after each."""
    parser = _parser()
    args = parser.parse_args()
    rows = [row for row in ROWS if any(fnmatch.fnmatch(row, given) for given in args.rows)]
    if not rows:
        parser.error(f"--rows={' '.join(args.rows)} matches none of: {', '.join(ROWS)}")
    recording = record.Recording(parser, args)
    jax.config.update("jax_default_matmul_precision", "default" if args.tf32 else "highest")
    settings = _settings(args)
    result = recording.resume() or {"rows": {}}
    if result.get("settings", settings) != settings:
        parser.error(f"--out={args.out} was measured with {result['settings']}, not {settings}")
    for row in rows:
        if not args.again and result["rows"].get(row, {}).get("busy_elsewhere", 1.0) < MOST_BUSY:
            continue
        print(f"{row} ...", file=sys.stderr, flush=True)
        result["rows"][row] = measure_row(row, args)
        recording.write({"settings": settings, "rows": result["rows"]}, quiet=True)
    recording.write({"settings": settings, "rows": result["rows"]})
    reporting.print_table("Images a second, median of rounds", table(result["rows"]))


def measure_row(row: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of one row: each side's, the agreement, and the ratios."""
    name, mode = row.split("/")
    network = NETWORKS[name]
    batch_size = args.batch_size or network.batch_sizes[_platform()]
    variables = throughput_sides.random_variables(network)
    batch = throughput_sides.random_batch(network, batch_size)
    sides: dict[str, Side] = {}
    measured: dict[str, dict[str, Any]] = {}
    for side in args.sides:
        start = time.perf_counter()
        try:
            made = _maker(side, args)(network, mode, variables, batch, args.precision)
            first = made.mean(made.step())
            made.wait()
        except Exception as error:
            if side != "torch_compile":
                raise
            measured[side] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
            continue
        measured[side] = {
            "seconds_to_first_step": time.perf_counter() - start,
            "first_value": first,
        }
        sides[side] = made
        _check_agreement(row, side, sides, measured, TOLERANCE[args.precision])
    start, others = time.perf_counter(), record.cpu_seconds_of_others()
    take = {side: functools.partial(rounds.turn, made) for side, made in sides.items()}
    for side, turns in rounds.interleave(take, args.rounds, args.seconds).items():
        measured[side] |= rounds.summary(turns, batch_size)
    others = (record.cpu_seconds_of_others() - others) / (time.perf_counter() - start)
    return {
        "batch_size": batch_size,
        "image_size": network.image_size,
        "num_classes": network.num_classes,
        "sides": measured,
        "ratios": _ratios(measured),
        "rounds": args.rounds,
        "busy_elsewhere": others / os.cpu_count(),
        "load_average": os.getloadavg(),
    }


def table(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows as printed."""
    lines = []
    for name, row in rows.items():
        line: dict[str, Any] = {"row": name, "batch": row["batch_size"]}
        for side, measured in row["sides"].items():
            line[side] = measured.get("images_per_second_median", measured.get("error", ""))
        lines.append(line | {f"to {side}": ratio for side, ratio in row["ratios"].items()})
    return lines


def _maker(side: str, args: argparse.Namespace) -> Callable[..., Side]:
    if side in ("jax", "jax_native"):
        native = side == "jax_native"
        return lambda *made_of: throughput_sides.make(*made_of, native_gradients=native)
    from benchmarks import throughput_torch

    compile_mode = args.compile_mode if side == "torch_compile" else ""
    return lambda *made_of: throughput_torch.make(*made_of, compile_mode=compile_mode)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Configures PyTorch where it takes part; returns what all rows of a file have in common."""
    settings = {
        "sides": list(args.sides),
        "precision": args.precision,
        "tf32": args.tf32 if _platform() == "gpu" else None,
    }
    if any(side.startswith("torch") for side in args.sides):
        from benchmarks import throughput_torch

        settings |= throughput_torch.configure(args.threads, args.tf32)
        settings["compile_mode"] = args.compile_mode
    return settings


def _ratios(measured: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns the throughput of the first side over that of each other; above 1 the first is faster."""
    names = [name for name, figures in measured.items() if "error" not in figures]
    first, *others = names
    return {
        name: measured[name]["milliseconds_median"] / measured[first]["milliseconds_median"]
        for name in others
    }


def _check_agreement(row, side, sides, measured, tolerance):
    """Exits unless logits and the first step's loss (or mean logit) are those of the first side."""
    reference = next(iter(sides))
    made, ours = sides[side].logits, sides[reference].logits
    error = float(np.abs(made - ours).max() / np.abs(ours).max())
    measured[side]["logits_error"] = error
    value, expected = measured[side]["first_value"], measured[reference]["first_value"]
    first_error = abs(value - expected) / max(1.0, abs(expected))
    if not (error <= tolerance and first_error <= tolerance):
        sys.exit(
            f"{row}: {side} and {reference} disagree: logits by {error:.2g} of the largest, the "
            f"first step's value {value} against {expected}; expected at most {tolerance}"
        )


def _platform() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=["*"], help="names or patterns of rows")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=["jax", "torch_eager", "torch_compile"],
        help="ratios are those of the first to each other",
    )
    parser.add_argument("--precision", choices=tuple(TOLERANCE), default="float32")
    parser.add_argument(
        "--no-tf32", dest="tf32", action="store_false", help="full float32 on a GPU"
    )
    parser.add_argument("--compile_mode", choices=COMPILE_MODES, default="default")
    parser.add_argument("--batch_size", type=int, default=0, help="0: by network and platform")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing a row, about")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--again", action="store_true", help="measure rows that --out holds, too")
    record.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
