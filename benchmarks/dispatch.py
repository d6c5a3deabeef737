"""Training steps fed from the host, and from data stored on the device: images a second, waiting, the same bits.

    python -m benchmarks.dispatch --data_dir=DIR [--seconds=10] [--out=FILE]

The packaged ResNet-20 on CIFAR-10, by the training loop of every run. Cases: nothing frozen; its backbone frozen, on
images; the same on stored features. Feeds: batches that come from the host one by one, decoded before or as they
are needed; a split stored on the device, one update a dispatch; and several. Each feed of a case makes the same
updates from the same start, in turn, and has to end with the same bits as the first.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np
from absl import flags

from benchmarks import record
from tl_jax import data
from tl_jax.config import load as load_config
from tl_jax.config import set_field
from tl_jax.runs import activation_cache, dispatch
from tl_jax.runs.setup import Setup, prepare
from tl_jax.training import loops

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CASES = {
    "nothing frozen": ("freeze.strategy=none", "cache.boundary="),
    "backbone frozen, images": ("cache.boundary=",),
    "backbone frozen, stored features": ("cache.boundary=pool",),
}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, about")
    parser.add_argument("--repeats", type=int, default=3)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    flags.FLAGS(["dispatch"])  # Grain's processes ask for it
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case, fields in CASES.items():
            rows += measure(case, fields, args, scratch)
    recording.write({"rows": rows})


def measure(case: str, fields: tuple[str, ...], args: argparse.Namespace, scratch: str) -> list:
    """Returns a row for each feed of a case."""
    config = load_config(REPOSITORY / "configs" / "cifar10_linear_probe.py")
    given = (
        f"data.data_dir={args.data_dir}",
        f"cache.dir={scratch}",
        "data.validation_fraction=0.0",
    )
    for assignment in (*given, *fields):
        set_field(config, assignment)
    setup = activation_cache.use(prepare(config))
    data.wait_for(setup.splits)
    feeds = {
        "host": (setup, "host", 1, 0),
        "device, one update a dispatch": (setup, "device", 1, 0),
        "device, several updates a dispatch": (setup, "device", 0, 0),
    }
    if setup.cache is None:
        on_access = data.load_splits(
            "tfds:cifar10", decoding=data.Decoding(max_memory_bytes=0), data_dir=args.data_dir
        )
        lazy = dataclasses.replace(setup, inputs=on_access)
        feeds["host, decoding in threads"] = (lazy, "host", 1, 0)
        feeds["host, decoding in a process (Grain)"] = (lazy, "host", 1, 1)
    runs = {}
    for name, (feeding, placement, updates, workers) in feeds.items():
        own = config.copy_and_resolve_references()
        own.data.placement, own.data.workers = placement, workers
        own.train.updates_per_dispatch = updates
        how = dispatch.make(dataclasses.replace(feeding, config=own))
        how.place()
        runs[name] = how
    count = updates_for(setup, runs["device, several updates a dispatch"], args.seconds)
    measured: dict[str, list[dict]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, how in runs.items():
            measured[name].append(advance(setup, how, count))
            print(
                f"{case}; {name}: {measured[name][-1]['images_per_second']:,.0f}", file=sys.stderr
            )
    first = measured["host"][0]["bits"]
    return [
        {
            "case": case,
            "feed": name,
            "updates": count,
            "updates_per_dispatch": runs[name].updates,
            "images_per_second": float(np.median([one["images_per_second"] for one in found])),
            "waiting_share": max(one["waiting_share"] for one in found),
            "same_bits_as_from_the_host": all(one["bits"] == first for one in found),
        }
        for name, found in measured.items()
    ]


def updates_for(setup: Setup, how: dispatch.Dispatch, seconds: float) -> int:
    """Returns how many updates take about so long, a whole number of dispatches."""
    block = min(how.updates, 256)
    advance(setup, how, block)
    rate = advance(setup, how, 2 * block)["images_per_second"] / setup.order.batch_size
    return max(2, round(seconds * rate / block)) * block


def advance(setup: Setup, how: dispatch.Dispatch, count: int) -> dict:
    """Returns the speed of `count` updates from the start, the share of waiting and the last bits."""
    lines = []
    with how.open_feed(0, count) as feed:
        began = time.perf_counter()
        state = loops.train(
            setup.initial_state(),
            how.step,
            feed,
            loops.Intervals(count, log_every=0, updates_per_dispatch=how.updates),
            loops.Hooks(
                log=lambda step, measured: lines.append(measured),
                evaluate=lambda state: None,
                save=lambda state, metrics: None,
            ),
            batch_size=setup.order.batch_size,
        )
        seconds = time.perf_counter() - began
    leaves = jax.tree.leaves(jax.device_get((state.params, state.batch_stats, state.opt_state)))
    return {
        "images_per_second": count * setup.order.batch_size / seconds,
        "waiting_share": lines[0]["waiting_seconds"] / seconds,
        "bits": hash(tuple(np.asarray(leaf).tobytes() for leaf in leaves)),
    }


if __name__ == "__main__":
    main()
