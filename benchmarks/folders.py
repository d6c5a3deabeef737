"""Image folders: seconds to the first training step, images decoded a second, and peak memory.

    python -m benchmarks.folders --data=folder:photos.zip [--data=...] --data_dir=DIR [--out=folders.json]

A cold start decodes the images and keeps them, and what it learns of the files; a warm one finds both. "access" reads
an image when a batch asks for it, as of data larger than memory, where the files are known. "skip" is a cold start
with `data.unreadable=skip`, which decodes all images once more to find those that cannot be read. The clock runs from
before the data set is opened to the end of the first update of a ResNet-20 on a frozen backbone, whose program is
compiled before. Each start has a process of its own; its peak memory is that above what it held before. Files come
from the operating system's memory: all of them are read once before. Inspection (`experiments.inspect_data`) is timed
in the same way. Paths are relative to --data_dir, which is not recorded.
"""

import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops, record
from tl_jax import data, models
from tl_jax.augment import preprocessing
from tl_jax.data import order, stream

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
STARTS = ("cold", "warm", "access", "skip", "inspect")


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", help="folder:PATH, csv:PATH; several times")
    parser.add_argument("--data_dir", help="where PATH is looked up")
    parser.add_argument("--image_size", type=int, default=0, help="0: as stored")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    record.add_arguments(parser)
    args = parser.parse_args()
    if not args.data:
        parser.error("--data: expected a data set, such as folder:photos")
    if args.start:
        print(json.dumps(measure(args)))
        return
    recording = record.Recording(parser, args)
    rows = []
    for name in args.data:
        measured: dict[str, list[dict[str, Any]]] = {start: [] for start in STARTS}
        with tempfile.TemporaryDirectory(prefix="tl_jax-folders-") as scratch:
            for _ in range(args.repeats):
                shutil.rmtree(scratch)
                for start in STARTS:
                    # Cold and warm share a cache, skip has one of its own.
                    cache = pathlib.Path(scratch, "skip" if start == "skip" else "usual")
                    measured[start].append(in_process(args, name, start, cache))
                    seconds = measured[start][-1]["seconds"]
                    print(f"{name} {start}: {seconds:.2f} s", file=sys.stderr, flush=True)
        rows.append(summary(name.rpartition("/")[2], measured))
    unit = "seconds to the end of the first update; bytes above what the process held before"
    recording.write({"unit": unit, "batch_size": args.batch_size, "rows": rows})


def in_process(
    args: argparse.Namespace, name: str, start: str, cache: pathlib.Path
) -> dict[str, Any]:
    """Returns what a start in a process of its own measured.

    Raises:
        RuntimeError: if it fails, with what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.folders", f"--data={name}", f"--start={start}"]
    command += [f"--cache={cache}", f"--batch_size={args.batch_size}"]
    command += [f"--image_size={args.image_size}"]
    command += [f"--data_dir={args.data_dir}"] * bool(args.data_dir)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the seconds of one start, its images, and its peak memory in bytes."""
    name, selection = args.data[0], data.Selection(validation_fraction=0.1)
    opened = data.open_undecoded(name, selection, data_dir=args.data_dir)
    # Reads every file, so that all starts find them in memory.
    fingerprints = [split.records.fingerprint() for split in opened.values()]  # type: ignore[attr-defined]
    assert fingerprints
    count = sum(map(len, opened.values()))
    decoding = data.Decoding(
        args.image_size,
        max_memory_bytes=0 if args.start == "access" else 8 << 30,
        cache_dir=args.cache,
        unreadable="skip" if args.start == "skip" else "stop",
    )
    step = None
    if args.start != "inspect":
        # The shape of the images, from headers alone.
        usual = data.load_splits(
            name,
            selection,
            data.Decoding(args.image_size, max_memory_bytes=0),
            data_dir=args.data_dir,
        )
        train = usual["train"]
        step, state = make_step(train.image_shape, len(train.class_names), args.batch_size)
    held = peak_bytes()
    began = time.perf_counter()
    if step is None:
        found = data.inspect(data.open_undecoded(name, selection, data_dir=args.data_dir), name)
        return facts(time.perf_counter() - began, count, held) | {"pairs": len(found.pairs)}
    splits = data.load_splits(name, selection, decoding, data_dir=args.data_dir)
    train = splits["train"]
    opened_seconds = time.perf_counter() - began
    examples = order.Order(0, args.batch_size, len(train))
    batches = stream.batches(train, examples, 0, 2)
    batch = {key: jnp.asarray(value) for key, value in next(batches).items() if key != "index"}
    jax.block_until_ready(step(state, batch))
    batches.close()
    return facts(time.perf_counter() - began, count, held) | {"opened_seconds": opened_seconds}


def facts(seconds: float, count: int, held: int) -> dict[str, Any]:
    """Returns what every start measures."""
    return {"seconds": seconds, "images": count, "peak_bytes": peak_bytes() - held}


def make_step(image_shape: tuple[int, ...], num_classes: int, batch_size: int) -> tuple[Any, Any]:
    """Returns a compiled training step of a linear probe, and its state."""
    side = min(image_shape[:2])
    model = models.create_model("resnet20_cifar", num_classes)
    variables = models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    spec = preprocessing.Preprocessing(side)
    step, state = flops.make_train_step(model, variables, spec, "backbone")
    batch = {
        "image": jnp.asarray(np.zeros((batch_size, *image_shape), np.uint8)),
        "label": jnp.zeros(batch_size, jnp.int32),
        "position": jnp.arange(batch_size, dtype=jnp.int32),
    }
    compiled = jax.jit(step)
    jax.block_until_ready(compiled(state, batch))
    return compiled, state


def peak_bytes() -> int:
    """Returns the most memory that this process has held; 0 where the system does not say (not Linux)."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def summary(name: str, measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns medians of one data set."""

    def median(start: str, what: str) -> float:
        return round(statistics.median(one[what] for one in measured[start]), 3)

    images = measured["cold"][0]["images"]
    return {
        "data": name,
        "images": images,
        "seconds": {start: median(start, "seconds") for start in STARTS},
        "decoded_per_second": round(images / median("cold", "opened_seconds")),
        "inspected_per_second": round(images / median("inspect", "seconds")),
        "peak_bytes": {start: round(median(start, "peak_bytes")) for start in STARTS},
        "all": {start: [round(one["seconds"], 3) for one in measured[start]] for start in STARTS},
    }


if __name__ == "__main__":
    main()
