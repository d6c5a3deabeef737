"""An enlarged data set: the training images of a config with augmented copies, the other splits as they are.

Copies are made once, where training otherwise draws new ones at every update.
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tl_jax import console, data, files
from tl_jax.augment import make_augment, preprocessing
from tl_jax.config import flat
from tl_jax.data import images, tfds_writer, writing
from tl_jax.data.writing import Example
from tl_jax.errors import InputError, unknown
from tl_jax.runs import augmentation, weights
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.setup import check_config
from tl_jax.runs.splits import make_stored_splits
from tl_jax.training import loops, steps

FORMATS = ("png", "jpeg", "tfds")
DATASET = "extended"  # the name of a TFDS directory
_FACTS = ".extension.json"
_CHUNK = 64  # images


class Stopped(loops.Stopped):
    """The command was asked to stop; nothing was written."""

    def __init__(self) -> None:
        Exception.__init__(
            self, "stopped on request; nothing was written, run the same command again"
        )
        self.step = 0


def extend_data(
    config: ml_collections.ConfigDict,
    out: pathlib.Path,
    *,
    copies: int = 4,
    store_as: str = "png",
    parts: Parts = NOTHING_GIVEN,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Returns how many images each split of the new data set has.

    The training images are those that the run of the config would see: without those held out, a few of each class
    where `data.examples_per_class` says so. Each is written as it is stored, and `copies` times augmented, at the
    network's input size. `validation`, where the config has one, and `test` are written as they are stored, once.
    Copy c of image i depends on the config's seed, on c and on i alone. `out` appears whole or not at all.

    Args:
        config: of a run; its `augment` says what is done.
        out: a folder that does not exist, or is empty.
        copies: augmented ones of each training image.
        store_as: how copies are stored: "png" and "jpeg" make a folder of class folders, "tfds" a TFDS directory.
        parts: objects that are given instead of by name.
        stop_requested: whether to give up.

    Raises:
        InputError: if the config is wrong, changes nothing or mixes images, or `out` holds something; nothing is
            written then.
        Stopped: when asked to.
    """
    _check(config, out, copies, store_as)
    check_config(config, parts)
    splits = make_stored_splits(config, parts.source)
    train = splits["train"]
    names = train.class_names
    if store_as == "tfds":
        tfds_writer.check_class_names(names, "--store_as=tfds", "--store_as=png, or other names")
    else:
        writing.check_folder_names(names, np.bincount(train.labels, minlength=len(names)) > 0)
    copier = _make_copier(config, parts, train, copies, store_as)
    _say_plan(splits, copies, copier, out)
    written: writing.Splits = {
        "train": _extended(train, copier, stop_requested),
        **{
            role: _as_stored(splits[role], stop_requested)
            for role in ("validation", "test")
            if role in splits
        },
    }
    out = out.absolute()
    with (
        files.Draft(out.parent) as draft,
        files.explain_full_disk("the data set", out.parent, _estimate(splits, copies)),
    ):
        if store_as == "tfds":
            description = (
                f"{config.data.name} with {copies} augmented copies of each training image."
            )
            counts = writing.write_tfds(draft.path, DATASET, names, written, description)
        else:
            counts = writing.write_folder(draft.path, names, written)
        files.write(draft.path / _FACTS, files.to_json(_facts(config, copies, store_as, counts)))
        if not draft.publish(out.name, lambda _: True):
            raise InputError(
                f"{out}: another process has put files there; expected an empty folder"
            )
    _say_result(config, splits, copier, out, store_as, counts)
    return counts


def _check(
    config: ml_collections.ConfigDict, out: pathlib.Path, copies: int, store_as: str
) -> None:
    """Raises InputError for what can be told before the data are looked at."""
    if store_as not in FORMATS:
        raise unknown("--store_as", store_as, FORMATS)
    if copies < 1:
        raise InputError(f"--copies={copies}: expected an integer from 1")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        kind = "is a file" if out.is_file() else "is not empty"
        raise InputError(f"--out={out} {kind}; expected a folder that does not exist yet")
    kind, _, path = config.data.name.partition(":")
    for root in (pathlib.Path(path), pathlib.Path(config.data.data_dir, path)):
        root = root.expanduser()
        if kind == "folder" and root.is_dir() and out.resolve().is_relative_to(root.resolve()):
            raise InputError(
                f"--out={out} is inside {root}, the data set that is extended: its images would be read as more of "
                "it; expected a folder beside it"
            )
    section = config.augment
    if section.mixing:
        raise InputError(
            f"augment.mixing={tuple(section.mixing)}: a mixed image has two classes, which a data set of images "
            "cannot say; expected --config.augment.mixing= (training on the new data set may mix)"
        )
    if config.phases:
        raise InputError(
            f"phases={tuple(map(tuple, config.phases))}: copies are made once, before any phase; expected "
            "--config.phases='()'"
        )
    if not (section.crop_padding or section.flip or section.operations):
        raise InputError(
            "augment: nothing changes the images, all copies would be the same; expected a crop_padding, flip or "
            "operations, such as \"--config.augment.operations=('rand_augment=9',)\""
        )


@dataclasses.dataclass(frozen=True)
class _Copier:
    """Makes the copies of training images.

    Attributes:
        augment: `(key, positions, images) -> images`, compiled.
        keys: of each copy.
        encode: from uint8 [S, S, 3] to bytes.
        ending: of their files.
        size: S.
        cropped: whether the preprocessing resizes images to more than S before it crops: copies, which
            are made after it, would be enlarged and cropped again.
    """

    augment: Callable[..., jax.Array]
    keys: tuple[jax.Array, ...]
    encode: Callable[[np.ndarray], bytes]
    ending: str
    size: int
    cropped: bool

    def __call__(self, pixels: np.ndarray, indices: np.ndarray) -> list[list[bytes]]:
        """Returns the copies, encoded, of each of up to `_CHUNK` images; `indices` are theirs in the split."""
        missing = _CHUNK - len(indices)
        pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
        positions = jnp.asarray(np.append(indices, [0] * missing), jnp.int32)
        made = [
            np.asarray(self.augment(key, positions, pixels))[: len(indices)] for key in self.keys
        ]
        flat_images = [image for one in zip(*made, strict=True) for image in one]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            encoded = list(pool.map(self.encode, flat_images))
        count = len(self.keys)
        return [encoded[start : start + count] for start in range(0, len(encoded), count)]


def _make_copier(
    config: ml_collections.ConfigDict, parts: Parts, train: data.Split, copies: int, store_as: str
) -> _Copier:
    known = weights.preprocessing_of(config) if weights.find(config) else None
    spec, _ = weights.make_preprocessing(
        config, weights.Initial({}, known, None), tuple(train.image_shape)
    )
    chosen = augmentation.make_augmentation(config, parts)
    augmentation.check_operations(config, chosen.operations, spec.image_size)
    augment = make_augment(spec, chosen)
    encode = images.to_jpeg if store_as == "jpeg" else images.to_png
    return _Copier(
        jax.jit(lambda *arguments: preprocessing.as_levels(augment(*arguments))),
        tuple(steps.update_key(config.seed, number) for number in range(copies)),
        encode,
        ".jpg" if store_as == "jpeg" else ".png",
        spec.image_size,
        (spec.resize or 0) > spec.image_size,
    )


def _extended(
    split: data.Split, copier: _Copier, stop_requested: Callable[[], bool]
) -> Iterator[Example]:
    """Yields every training image as it is stored, and its copies."""
    for indices in _chunks(split, stop_requested):
        made = copier(split.gather(indices), indices)
        stored = writing.stored_images(split, indices)
        for index, (image, ending), copies in zip(indices, stored, made, strict=True):
            name, label = f"{index:07d}", int(split.labels[index])
            yield Example(f"{name}_0", image, ending, label)
            for number, copy in enumerate(copies, 1):
                yield Example(f"{name}_{number}", copy, copier.ending, label)


def _as_stored(split: data.Split, stop_requested: Callable[[], bool]) -> Iterator[Example]:
    """Yields every image of a split as it is stored."""
    for indices in _chunks(split, stop_requested):
        stored = writing.stored_images(split, indices)
        for index, (image, ending) in zip(indices, stored, strict=True):
            yield Example(f"{index:07d}", image, ending, int(split.labels[index]))


def _chunks(split: data.Split, stop_requested: Callable[[], bool]) -> Iterator[np.ndarray]:
    for start in range(0, len(split), _CHUNK):
        if stop_requested():
            raise Stopped
        yield np.arange(start, min(start + _CHUNK, len(split)))


def _estimate(splits: data.Splits, copies: int) -> int:
    """Returns about how many bytes are written: half of those of the pixels."""
    return (splits["train"].num_bytes * copies + sum(one.num_bytes for one in splits.values())) // 2


def _facts(
    config: ml_collections.ConfigDict, copies: int, store_as: str, counts: dict[str, int]
) -> dict[str, Any]:
    values = flat(config)
    return {
        "copies": copies,
        "store_as": store_as,
        "images": counts,
        "config": {
            name: value
            for name, value in values.items()
            if name == "seed" or name.startswith(("data.", "augment.", "preprocess."))
        },
    }


def _say_plan(splits: data.Splits, copies: int, copier: _Copier, out: pathlib.Path) -> None:
    count, times = len(splits["train"]), "1 copy" if copies == 1 else f"{copies} copies"
    console.say(
        f"{console.count(count, 'training image')}, {times} of each at {copier.size} x {copier.size} pixels, to {out}"
    )


def _say_result(
    config: ml_collections.ConfigDict,
    splits: data.Splits,
    copier: _Copier,
    out: pathlib.Path,
    store_as: str,
    counts: dict[str, int],
) -> None:
    listed = ", ".join(f"{role} {count:,}" for role, count in counts.items())
    console.say(f"{out} is written: {listed} images")
    name = f"tfds:{DATASET} --config.data.data_dir={out}" if store_as == "tfds" else f"folder:{out}"
    held = (
        "--config.data.validation_split=validation --config.data.validation_fraction=0"
        if "validation" in splits
        else "--config.data.validation_split= --config.data.validation_fraction=0"
    )
    console.say(
        f"train on it with --config.data.name={name} --config.data.train_split=train --config.data.test_split=test "
        f"{held} --config.data.examples_per_class=0"
        + " --config.data.folds=0" * bool(config.data.folds)
        + f" --config.preprocess.resize={copier.size}" * copier.cropped
    )
    if config.data.folds:
        console.note(
            f"test is fold {config.data.fold} of {config.data.folds}; folds of the new training split would hold "
            "copies of what is trained on: cross-validation is for the data set before extending"
        )
    if "validation" not in splits:
        console.note(
            "no validation split: one held out of the new training split would hold copies of what is trained on, as "
            "its folds would; "
            "--config.data.validation_fraction=0.1 before extending holds out images, not copies"
        )
