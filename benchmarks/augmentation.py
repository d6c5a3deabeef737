"""Images a second of every operation and mixing, each in a compiled program of its own, on random pixels.

    python -m benchmarks.augmentation
    python -m benchmarks.augmentation --batch_size=256 --sizes 32 128 --rounds=9

An operation takes uint8 images to normalised float32 ones, as a training step does; "nothing" is the same without an
operation. A mixing takes normalised images and labels. The cases of a size are timed in turn, round after round, and
the median of the rounds is given. RandAugment is also measured as a `switch` of its changes, all of which a batch
computes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from tl_jax.augment import (
    MIXINGS,
    OPERATIONS,
    Augmentation,
    Operation,
    color,
    filters,
    geometry,
    levels,
    make_mixing,
    make_train_transform,
    policies,
    warps,
)
from tl_jax.augment.preprocessing import Preprocessing

OPERATION_NAMES = (
    "rotation=15",
    "random_resized_crop=0.08",
    "translation=0.1",
    "shear=15",
    "zoom=0.2",
    "perspective=0.5",
    "color_jitter=0.4",
    "brightness=0.4",
    "contrast=0.4",
    "saturation=0.4",
    "hue=0.1",
    "grey=0.2",
    "blur=2",
    "noise=0.05",
    "posterise=4",
    "solarise=128",
    "equalise=0.5",
    "auto_contrast=0.5",
    "random_erasing=0.25",
    "cutout=16",
    "random_change=9",
    "rand_augment=9",
    "trivial_augment=1",
    "three_augment=0.3",
)
REFLECTED = "rotation=15"  # also filled by reflection
MIXING_NAMES = ("mixup=0.2", "cutmix=1")
NUM_CLASSES = 10
NOTHING = "nothing"
SWITCH = "rand_augment=9 as a switch"


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128], help="in pixels")
    parser.add_argument("--rounds", type=int, default=9)
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    rows = [row for size in args.sizes for row in measure(size, args.batch_size, args.rounds)]
    recording.write({"batch_size": args.batch_size, "rounds": args.rounds, "rows": rows})


def measure(size: int, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each case of a size."""
    programs = make_programs(size, batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for run in programs.values():
        run(0)  # compiled, and once more warm
        run(1)
    for number in range(rounds):
        for name, run in programs.items():
            seconds[name].append(timed(run, number))
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{size} px, {name}: {batch_size / median:,.0f} images/s", file=sys.stderr)
        rows.append(
            {
                "size": size,
                "case": name,
                "milliseconds_median": 1e3 * median,
                "milliseconds": [1e3 * value for value in times],
                "images_per_second": batch_size / median,
            }
        )
    return rows


def make_programs(size: int, batch_size: int) -> dict[str, Callable[[int], None]]:
    """Returns {case: function of a seed that runs its program and waits for the result}."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (batch_size, size, size, 3), np.uint8))
    positions = jnp.arange(batch_size, dtype=jnp.int32)
    labels = jnp.asarray(random.integers(0, NUM_CLASSES, batch_size), jnp.int32)
    spec = Preprocessing(size)
    augmentations = {
        NOTHING: Augmentation(),
        "crop and flip": Augmentation(size // 8, True),
        **{name: Augmentation(operations=(OPERATIONS.read(name),)) for name in OPERATION_NAMES},
        f"{REFLECTED}, fill=reflect": Augmentation(
            operations=(OPERATIONS.read(REFLECTED),), fill="reflect"
        ),
        SWITCH: Augmentation(operations=(Operation("switch", switch_of_changes, 9),)),
    }
    programs = {}
    for name, augmentation in augmentations.items():
        transform = jax.jit(make_train_transform(spec, augmentation))
        programs[name] = waiting(transform, positions, images)
    normalised = jax.jit(make_train_transform(spec))(jax.random.key(0), positions, images)
    for name in MIXING_NAMES:
        mix = make_mixing([MIXINGS.read(name)], NUM_CLASSES)
        assert mix is not None
        programs[name] = waiting(jax.jit(mix), normalised, labels)
    return programs


def switch_of_changes(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns what `rand_augment` does, each change a function of its own and the choice a `switch`."""
    branches = {
        "identity": lambda image, amount: image,
        "shear_x": lambda image, amount: warps.warp(image, warps.shear_map(amount, 0.0)),
        "shear_y": lambda image, amount: warps.warp(image, warps.shear_map(0.0, amount)),
        "translate_x": lambda image, amount: warps.warp(image, warps.translation_map(amount, 0.0)),
        "translate_y": lambda image, amount: warps.warp(image, warps.translation_map(0.0, amount)),
        "rotate": geometry.rotate,
        "brightness": lambda image, amount: color.blend(image, 0.0, amount),
        "color": lambda image, amount: color.blend(image, color.grey_values(image), amount),
        "contrast": lambda image, amount: color.blend(image, color.mean_grey(image), amount),
        "sharpness": lambda image, amount: jnp.clip(
            amount * image + (1 - amount) * filters.smooth(image), 0.0, 255.0
        ),
        "posterise": levels.keep_bits,
        "solarise": levels.invert_from,
        "auto_contrast": lambda image, amount: _stretched(image),
        "equalise": lambda image, amount: levels.make_even(image),
    }
    share = jnp.float32(strength / policies.LARGEST_MAGNITUDE)
    for layer in jax.random.split(key):
        kind, amount = policies.draw_change(layer, policies.RAND_AUGMENT, share, image.shape[:2])
        changes = [branches[name] for name in policies.CHANGES]
        image = jax.lax.switch(kind, changes, image, amount)
    return image


def _stretched(image: jax.Array) -> jax.Array:
    factor, shift = levels.stretching(image)
    return jnp.clip(factor * image + shift, 0.0, 255.0)


def waiting(function: Callable[..., Any], *arguments: jax.Array) -> Callable[[int], None]:
    """Returns a function of a seed that calls `function(key, *arguments)` and waits for it."""
    return lambda seed: jax.block_until_ready(function(jax.random.key(seed), *arguments))


def timed(run: Callable[[int], None], seed: int) -> float:
    """Returns the seconds of one call."""
    began = time.perf_counter()
    run(seed)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
