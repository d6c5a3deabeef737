"""What training will see: images of the first update, drawn as updates draw them, and every change alone.

Leaves `augmentation.html`, which opens from disk, and its sheets as PNG.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tl_jax import console, features
from tl_jax.augment import Augmentation, make_augment, preprocessing
from tl_jax.errors import InputError
from tl_jax.reporting.preview import PAGE, Picture, Sheet, write_preview
from tl_jax.runs import run_folder
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.pure_step import make_transform
from tl_jax.runs.setup import Setup, prepare_phases
from tl_jax.training import steps

# Of the key of what a sheet shows alone; no update has it.
_ALONE = 2**31 - 4


def preview_augment(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    images: int = 8,
    draws: int = 6,
    parts: Parts = NOTHING_GIVEN,
) -> pathlib.Path:
    """Returns the page that shows what the training images of a run become; earlier ones are replaced.

    For each phase with an augmentation of its own: images of its first update as they are, and as its updates
    draw them, at the network's input size (with stored activations: the views that are stored); then one image with
    every change alone.

    Args:
        config: of a run.
        workdir: a folder, made where missing; that of the run may be given.
        images: how many are shown, at most a batch.
        draws: of each image: those of so many updates, from the first one on.
        parts: objects that are given instead of by name.

    Raises:
        InputError: if the config is wrong, a number is below 1, or `workdir` holds files of something else.
    """
    if min(images, draws) < 1:
        raise InputError(f"images={images}, draws={draws}: expected integers from 1")
    run_folder.check_replaceable(workdir, PAGE)
    sheets: list[Sheet] = []
    seen: list[Any] = []
    setups = prepare_phases(config, parts)
    for number, setup in enumerate(setups):
        shown = (setup.augmentation, setup.mixings, setup.boundary)
        if shown in seen:
            continue
        seen.append(shown)
        phase = f", phase {number + 1} of {len(setups)}" if len(setups) > 1 else ""
        sheets.append(_sheet_of_updates(setup, phase, images, draws))
        sheets.append(_sheet_of_changes(setup, phase, draws))
    page = write_preview(workdir, _title(config), sheets)
    console.say(f"{page}: {', '.join(sheet.file for sheet in sheets)} beside it")
    return page


def _title(config: ml_collections.ConfigDict) -> str:
    return f"Augmentation of {config.data.name}"


def _sheet_of_updates(setup: Setup, phase: str, count: int, draws: int) -> Sheet:
    """Returns images of the first update, and what updates make of them."""
    split, first = setup.splits["train"], setup.first_step
    examples = setup.order.examples(first)
    count = min(count, len(examples))
    # A mixing sees the whole batch.
    mixing = setup.mixing if setup.boundary is None else None
    examples = examples if mixing is not None else examples[:count]
    batch = {
        "image": jnp.asarray(split.gather(examples)),
        "label": jnp.asarray(split.labels[examples]),
        "position": jnp.arange(len(examples), dtype=jnp.int32),
        "index": jnp.asarray(examples, jnp.int32),
    }
    names = split.class_names
    stored = _plain(setup, batch["image"][:count])
    rows = [
        [Picture(image, names[label])]
        for image, label in zip(stored, split.labels[examples[:count]], strict=True)
    ]
    drawn = _views(setup, examples, batch, draws) if setup.boundary else None
    network_input = _network_input(setup)
    for number in range(draws) if drawn is None else ():
        seen = network_input(first + number, batch)
        targets = np.asarray(seen["target"]) if "target" in seen else None
        for place, image in enumerate(_pixels(setup, seen["image"][:count])):
            caption = "" if targets is None else _mixed(targets[place], names)
            rows[place].append(Picture(image, caption))
    for view in drawn or ():
        for place, image in enumerate(view):
            rows[place].append(Picture(image, ""))
    word = "update" if drawn is None else "view"
    start = first if drawn is None else 0
    return Sheet(
        title=f"What the network sees{phase}",
        file=f"augmentation{_number(phase)}.png",
        note=_note(setup),
        columns=["image", *(f"{word} {start + number}" for number in range(len(rows[0]) - 1))],
        rows=rows,
        names=[""] * len(rows),
    )


def _sheet_of_changes(setup: Setup, phase: str, draws: int) -> Sheet:
    """Returns one image with each change of the augmentation alone, drawn several times."""
    augmentation = setup.augmentation
    alone: dict[str, Augmentation] = {}
    if augmentation.crop_padding:
        alone[f"crop_padding={augmentation.crop_padding}"] = Augmentation(
            augmentation.crop_padding, fill=augmentation.fill
        )
    if augmentation.flip:
        alone["flip"] = Augmentation(flip=True)
    for operation in augmentation.operations:
        alone[str(operation)] = Augmentation(operations=(operation,), fill=augmentation.fill)
    example = setup.order.examples(setup.first_step)[:1]
    image = setup.splits["train"].gather(example)
    key = steps.update_key(setup.config.seed, _ALONE)
    rows = []
    for number, change in enumerate(alone.values()):
        # Keys of their own, or all that happen with one probability would happen in the same columns.
        own_key = jax.random.fold_in(key, number)
        augment = jax.jit(make_augment(setup.preprocessing, change))
        drawn = augment(own_key, jnp.arange(draws), jnp.asarray(np.repeat(image, draws, axis=0)))
        drawn = np.broadcast_to(preprocessing.as_levels(drawn), (*drawn.shape[:3], 3))
        rows.append([Picture(one, "") for one in (*_plain(setup, jnp.asarray(image)), *drawn)])
    return Sheet(
        title=f"Each change alone{phase}",
        file=f"augmentation_changes{_number(phase)}.png",
        note="One image, drawn anew in every column."
        if rows
        else "Nothing changes the training images.",
        columns=["image", *(f"draw {number}" for number in range(draws))],
        rows=rows,
        names=list(alone),
    )


def _network_input(setup: Setup) -> Any:
    seed, transform = setup.config.seed, make_transform(setup)
    return jax.jit(
        lambda step, batch: steps.network_input(seed, step, batch, transform, setup.mixing)
    )


def _views(
    setup: Setup, examples: np.ndarray, batch: dict[str, jax.Array], draws: int
) -> list[np.ndarray]:
    """Returns the first stored views of the examples, as the cache makes them."""
    views = setup.order.views
    # A part of a data set has the views that it has in the whole.
    numbers = np.asarray(setup.splits["train"].whole()[1])[examples]
    transform = jax.jit(
        features.make_view_transform(
            setup.preprocessing, setup.augmentation, views, setup.config.cache.view_seed
        )
    )
    return [
        _pixels(setup, transform(jnp.asarray(numbers * views + view, jnp.int32), batch["image"]))
        for view in range(min(views, draws))
    ]


def _plain(setup: Setup, images: jax.Array) -> np.ndarray:
    plain = jax.jit(preprocessing.make_eval_transform(setup.preprocessing))
    return _pixels(setup, plain(images))


def _pixels(setup: Setup, images: jax.Array) -> np.ndarray:
    spec = setup.preprocessing
    return np.asarray(preprocessing.to_pixels(images, spec.mean, spec.std))


def _mixed(target: np.ndarray, names: Sequence[str]) -> str:
    """Returns the classes of a mixed target, a line each, such as "0.70 cat"."""
    places = [int(place) for place in np.argsort(-target) if target[place] > 0.005]
    return "\n".join(f"{target[place]:.2f} {names[place]}" for place in places[:2])


def _number(phase: str) -> str:
    """Returns what tells the files of a phase from those of others, such as "_phase2"."""
    return f"_phase{phase.split()[2]}" if phase else ""


def _note(setup: Setup) -> str:
    section = setup.config.augment
    size = setup.preprocessing.image_size
    parts = [
        f"{size} x {size} pixels",
        f"crop_padding={section.crop_padding}",
        f"flip={section.flip}",
        f"operations: {', '.join(map(str, setup.augmentation.operations)) or 'none'}",
        f"mixing: {', '.join(map(str, setup.mixings)) or 'none'}",
        f"fill={section.fill}",
        *(["once, before training"] if section.once else []),
    ]
    if setup.boundary is not None:
        parts.append(f"stored activations of {setup.order.views} views, before any mixing")
    return "; ".join(parts)
