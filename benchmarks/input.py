"""Images a second through each part of the input path of the host.

    python -m benchmarks.input [--data=tfds:cifar10] [--data_dir=DIR] [--batch_size=128] [--out=input.json]

`--data=jpeg:SIDE` makes a folder of smooth JPEG images of that side first. The parts: decoding on access, batches of
decoded images, and `stream.batches`, which reads ahead: from memory, decoding in threads, decoding in one and two
worker processes (Grain). The clock starts with the second batch, so that it leaves out the start of workers;
`first_batch_seconds` holds that. Parts take turns, so that a busy minute hits all alike.
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import record
from tl_jax.data import Decoding, Split, load_splits, stream
from tl_jax.data.order import Order

SECONDS = 3.0  # of every measurement, about


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="tfds:cifar10")
    parser.add_argument("--data_dir", help="of tfds")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    flags.FLAGS(["input"])  # Grain's processes ask for it
    with tempfile.TemporaryDirectory(prefix="tl_jax-input-") as scratch:
        name = args.data
        if name.startswith("jpeg:"):
            name = make_jpegs(pathlib.Path(scratch), int(name.removeprefix("jpeg:")))
        stored = load_splits(name, decoding=Decoding(max_memory_bytes=0), data_dir=args.data_dir)[
            "train"
        ]
        memory = load_splits(name, data_dir=args.data_dir)["train"]
        parts = make_parts(stored, memory, args.batch_size)
        measured: dict[str, list[tuple[float, float]]] = {part: [] for part in parts}
        for _ in range(args.repeats):
            for part, open_part in parts.items():
                measured[part].append(measure(open_part, args.batch_size))
                print(f"{part}: {measured[part][-1][0]:,.0f} images/s", file=sys.stderr, flush=True)
    result = {
        "images": len(stored),
        "image_shape": list(stored.image_shape),
        "batch_size": args.batch_size,
        "parts": [_summary(part, values) for part, values in measured.items()],
    }
    recording.write(result)


def make_parts(
    stored: Split, memory: Split, batch_size: int
) -> dict[str, Callable[[], Iterator[Any]]]:
    """Returns {name: function that opens an iterator of batches}.

    Args:
        stored: the split, decoded on access.
        memory: the same, decoded.
        batch_size: of the batches.
    """
    order = Order(0, batch_size, len(stored))

    def gathered(split: Split) -> Iterator[np.ndarray]:
        return (split.gather(order.rows(step)) for step in range(sys.maxsize))

    def streamed(split: Split, workers: int = 0) -> Iterator[stream.Batch]:
        return stream.batches(split, order, 0, 1_000_000, workers=workers)

    return {
        "decoding, on access": lambda: gathered(stored),
        "decoded batches": lambda: gathered(memory),
        "stream from memory": lambda: streamed(memory),
        "stream, decoding in threads": lambda: streamed(stored),
        "stream, decoding in 1 process": lambda: streamed(stored, 1),
        "stream, decoding in 2 processes": lambda: streamed(stored, 2),
    }


def measure(open_part: Callable[[], Iterator[Any]], batch_size: int) -> tuple[float, float]:
    """Returns images a second after the first batch, and the seconds until that."""
    opened = time.perf_counter()
    count = 0
    batches = open_part()
    with contextlib.closing(batches):  # type: ignore[type-var]
        next(batches)
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            next(batches)
            count += 1
        return count * batch_size / (time.perf_counter() - began), began - opened


def make_jpegs(folder: pathlib.Path, side: int, count: int = 512) -> str:
    """Writes `count` smooth JPEG images of two classes; returns the name for `load_splits`."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (16, 16, 3), np.uint8)
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(path, quality=90)
    return f"folder:{folder}"


def _summary(part: str, measured: list[tuple[float, float]]) -> dict[str, Any]:
    rates, starts = ([values[i] for values in measured] for i in range(2))
    return {
        "part": part,
        "images_per_second": round(statistics.median(rates)),
        "all": [round(rate) for rate in rates],
        "first_batch_seconds": round(statistics.median(starts), 4),
    }


if __name__ == "__main__":
    main()
