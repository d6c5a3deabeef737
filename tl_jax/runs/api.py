"""Runs from scripts and notebooks: no flags, nothing printed unless asked."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from tl_jax import console
from tl_jax import data as data_sets
from tl_jax.augment import Mixing, Operation
from tl_jax.errors import InputError
from tl_jax.runs import augmentation, extend, preview, training
from tl_jax.runs import evaluate as evaluation
from tl_jax.runs.finished import Run, load_run
from tl_jax.runs.parts import Parts, own_name
from tl_jax.runs.recording import Callback
from tl_jax.runs.stopping import StopRequest

# A data set by name or as arrays: one pair, from which a test split is taken, or a pair for each split.
Arrays = tuple[np.ndarray, np.ndarray]
Data = str | Arrays | Mapping[str, Arrays] | data_sets.Source


def finetune(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    data: Data | None = None,
    model: Any | None = None,
    class_names: tuple[str, ...] = (),
    objective: Any = None,
    optimizer: Any = None,
    operations: Sequence[Operation | str] | None = None,
    mixing: Sequence[Mixing | str] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> Run:
    """Returns the run of `config` in `workdir`: made now, resumed where it was interrupted, or loaded.

    An interrupt (Ctrl-C, or the stop button of a notebook) saves a checkpoint and raises `loops.Stopped`;
    the same call then goes on from it.

    Args:
        config: from `tl_jax.default_config`; not changed.
        workdir: the run folder.
        data: (images, labels), of which a fifth becomes the test split; {"train": (images, labels), "test":
            ...}, optionally with "validation"; a data set's name; or a `data.Source`. None: as
            `config.data.name` says. Images are uint8 [N, H, W, 3], labels integers [N].
        model: a network of your own, see `models.Network`: a Linen module, or a function from the number of
            classes to one. `config.model.name` becomes `own:` and the name of its class; it must be given again
            to resume, and its fields are not compared with those of before. None: as `config.model` says.
        class_names: of arrays; none: the numbers up to the highest label.
        objective: the main loss in place of cross-entropy: a function of `objectives.Outputs` that returns (scalar,
            metrics), or an `objectives.Own`; `config.objective` adds its terms.
        optimizer: from a schedule to an optax transformation, such as `optax.lion`, in place of
            `config.optim.name`; `config.optim` still says the schedule.
        operations: of the training images, in order: names such as "rotation=15", and own ones as
            `augment.Operation`; they become `config.augment.operations`. None: as that says.
        mixing: of the training batches, likewise `config.augment.mixing`, with `augment.Mixing`.
        callbacks: each called as `callback(step, split, metrics)` whenever metrics are logged: completed
            updates, "train" or "validation", and a dict such as {"loss": 0.1, "top1_accuracy": 0.9}. Those of
            "train" come once the next updates are under way.
        progress: whether what a command prints is printed.

    Raises:
        InputError: before anything is compiled, if config, workdir, data, network or weights do not fit.
        loops.Stopped: when interrupted, with a checkpoint saved.
        loops.NonFiniteLoss: naming step, batch and last good checkpoint.

    Example:
        >>> config = tl_jax.default_config(model__name="resnet20_cifar", train__steps=100)
        >>> run = tl_jax.finetune(config, "runs/mine", data=(images, labels))
        >>> run.result["splits"]["test"]["top1_accuracy"]
    """
    config = config.copy_and_resolve_references()
    source = _open(config, data, class_names)
    own_operations = augmentation.take(config, "operations", operations)
    own_mixings = augmentation.take(config, "mixing", mixing)
    parts = Parts(source, model, objective, optimizer, own_operations, own_mixings)
    if model is not None:
        config.model.name = parts.model_name
    if objective is not None and not callable(objective):
        raise InputError(
            f"objective is {objective!r}, expected a function of objectives.Outputs or an objectives.Own; names "
            "are for config.objective.name"
        )
    if objective is not None:
        config.objective.name = own_name(objective)
    if optimizer is not None:
        config.optim.name = own_name(optimizer)
    path = pathlib.Path(workdir).expanduser()
    with console.verbosity("normal" if progress else "silent"), StopRequest() as stop_requested:
        training.run(config, path, stop_requested, parts, callbacks)
    return load_run(path, model=model)


def evaluate(
    run: Run | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    data: Data | None = None,
    model: Any | None = None,
    class_names: tuple[str, ...] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Returns `result.json` of an evaluation of a run's network on a test split, in a folder of its own.

    Args:
        run: the run, or its folder.
        workdir: the folder of the evaluation.
        data: as of `finetune`; one pair of arrays is the test split. None: the data of the run.
        model: the network, where the run is a folder and was given one.
        class_names: of arrays.
        progress: whether what a command prints is printed.

    Raises:
        InputError: if the data do not fit the network's classes.
    """
    folder = run.workdir if isinstance(run, Run) else pathlib.Path(run).expanduser()
    if model is None and isinstance(run, Run):
        model = run.parts.model
    if isinstance(data, tuple | list) and len(data) == 2:
        data = {"test": (data[0], data[1])}
    if data is None and load_run(folder).config.data.name.startswith("arrays:"):
        raise InputError(
            f"{folder} was trained on arrays, which its folder does not hold; expected data=(images, labels)"
        )
    names = class_names or tuple(load_run(folder).class_names)
    source = None if data is None or isinstance(data, str) else _source(data, names)
    name = data if isinstance(data, str) else source and source.name
    changes = [f"data.name={name}", "data.test_split=test"] if name else []
    with console.verbosity("normal" if progress else "silent"):
        return evaluation.evaluate_run(
            folder, None, pathlib.Path(workdir).expanduser(), changes, Parts(source, model)
        )


def preview_augment(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    data: Data | None = None,
    class_names: tuple[str, ...] = (),
    operations: Sequence[Operation | str] | None = None,
    mixing: Sequence[Mixing | str] | None = None,
    images: int = 8,
    draws: int = 6,
) -> pathlib.Path:
    """Returns the page that shows what the training images of a run become; `augmentation.png` is beside it.

    Args:
        config: of the run; not changed.
        workdir: a folder for the page and its pictures; that of the run may be given.
        data: as of `finetune`.
        class_names: likewise.
        operations: likewise.
        mixing: likewise.
        images: how many are shown.
        draws: of each image.

    Raises:
        InputError: if config, data or a number do not fit.

    Example:
        >>> page = tl_jax.preview_augment(config, "runs/preview", data=(images, labels))
        >>> IPython.display.Image(page.with_suffix(".png"))
    """
    config = config.copy_and_resolve_references()
    parts = _augmenting_parts(config, data, class_names, operations, mixing)
    path = pathlib.Path(workdir).expanduser()
    with console.verbosity("silent"):
        return preview.preview_augment(config, path, images=images, draws=draws, parts=parts)


def extend_data(
    config: ml_collections.ConfigDict,
    out: str | os.PathLike[str],
    *,
    data: Data | None = None,
    class_names: tuple[str, ...] = (),
    operations: Sequence[Operation | str] | None = None,
    copies: int = 4,
    store_as: str = "png",
) -> dict[str, int]:
    """Returns how many images each split of a new data set has, whose training images have augmented copies.

    Args:
        config: of a run; not changed. Its `data` says what is held out, its `augment` what is done.
        out: the folder of the new data set: new or empty.
        data: as of `finetune`.
        class_names: likewise.
        operations: likewise.
        copies: augmented ones of each training image.
        store_as: "png" or "jpeg" for class folders (`folder:OUT`), "tfds" for a TFDS directory (`tfds:extended`).

    Raises:
        InputError: if config or data do not fit, or `out` holds something; nothing is written then.
    """
    config = config.copy_and_resolve_references()
    parts = _augmenting_parts(config, data, class_names, operations, None)
    path = pathlib.Path(out).expanduser()
    with console.verbosity("silent"), StopRequest() as stop_requested:
        return extend.extend_data(
            config,
            path,
            copies=copies,
            store_as=store_as,
            parts=parts,
            stop_requested=stop_requested,
        )


def _augmenting_parts(
    config: ml_collections.ConfigDict,
    given: Data | None,
    class_names: tuple[str, ...],
    operations: Sequence[Operation | str] | None,
    mixing: Sequence[Mixing | str] | None,
) -> Parts:
    """Returns what is given as objects; their names become those of the config."""
    return Parts(
        source=_open(config, given, class_names),
        operations=augmentation.take(config, "operations", operations),
        mixings=augmentation.take(config, "mixing", mixing),
    )


def _open(
    config: ml_collections.ConfigDict, given: Data | None, class_names: tuple[str, ...]
) -> data_sets.Source | None:
    """Returns the source of a run's data; its name becomes the one of the config."""
    if given is None:
        return None
    if isinstance(given, str):
        config.data.name = given
        return None
    source = _source(given, class_names)
    config.data.name = source.name
    if "validation" in source.split_names and not config.data.validation_split:
        config.data.validation_split, config.data.validation_fraction = "validation", 0.0
    return source


def _source(given: Any, class_names: tuple[str, ...]) -> data_sets.Source:
    if isinstance(given, tuple | list) and len(given) == 2:
        images, labels = given
        return data_sets.Arrays.split_off_test(images, labels, class_names)
    if isinstance(given, Mapping):
        return data_sets.Arrays(given, class_names)
    if not hasattr(given, "split") or not hasattr(given, "split_names"):
        raise InputError(
            f"data is {type(given).__name__}, expected (images, labels), a dict of such pairs, the name of a data "
            "set, or a source with name, split_names and split (tl_jax.data.Source)"
        )
    return given
