"""k-fold cross-validation of a training run: every image of train is predicted once, by a run that has not seen it.

Train is divided into `cross_validate.folds` stratified parts, a pure function of labels and `data.seed`. Each part is
reported on by an ordinary run, whose folder is below the workdir and which trains on the other parts: its step is
chosen by what `data.validation_fraction` (or `data.validation_split`) holds out of these, or by nothing where that is
0, and `data.examples_per_class` chooses from these. The test split is not opened.
"""

import copy
import io
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, files, reporting
from tl_jax.config import check, phase_configs
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.runs.setup import check_config
from tl_jax.runs.skeleton import alone
from tl_jax.runs.splits import folds_of_train
from tl_jax.training.loops import Stopped


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Makes the run of each fold, unless it is finished, and writes the table into `workdir`.

    Args:
        config: of every run; `config.cross_validate` says how many.
        workdir: of the runs, `fold1` and on.
        stop_requested: whether to stop; asked between updates.

    Returns:
        What `cross_validation.json` holds.

    Raises:
        InputError: before the first run trains, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop; the same command then goes on.
    """
    check(config)
    if config.data.folds:
        raise InputError(
            f"data.folds={config.data.folds}: the runs of a cross-validation have cross_validate.folds="
            f"{config.cross_validate.folds} folds, and each its own data.fold; expected data.folds=0"
        )
    count = config.cross_validate.folds
    check_config(fold_config(config, 1))
    labels, folds = folds_of_train(config, count)
    title = f"{config.model.name} on {config.data.name}, {count} folds of {config.data.train_split}"
    rows, runs = [], []
    with reporting.RunTable(title, ["fold"], range(1, count + 1), column="fold") as table:
        for fold in range(1, count + 1):
            folder = workdir / f"fold{fold}"
            cell = fold_config(config, fold)
            with table.run("fold", fold, _updates(cell)) as shown, alone(f"fold {fold}"):
                result = training.run(
                    cell,
                    folder,
                    stop_requested,
                    callbacks=[shown.logged],
                    sources=workdir / "sources",
                )
                shown.finished(result)
            if stop_requested() and fold < count:
                raise Stopped(result["steps"])
            rows.append(_row(fold, folder.name, result))
            runs.append(folder)
    class_names = tuple(result["class_names"])
    probabilities = pooled(runs, labels, folds, len(class_names))
    content: dict[str, Any] = {"title": title, "folds": rows, "class_names": list(class_names)}
    if jax.process_index() == 0:
        _write_predictions(workdir, probabilities, labels, folds, class_names)
        content = reporting.write_cross_validation(workdir, content, probabilities, labels)
        reporting.print_table(title, content["table"], level="normal")
        console.say(content["summary"])
        console.say(f"{workdir / 'cross_validation.html'}: every fold, with a link to its report")
    return content


def fold_config(config: ml_collections.ConfigDict, fold: int) -> ml_collections.ConfigDict:
    """Returns the config of the ordinary run that is reported on one fold, from 1."""
    cell = copy.deepcopy(config)
    cell.data.folds, cell.data.fold = config.cross_validate.folds, fold
    return cell


def pooled(
    runs: list[pathlib.Path], labels: np.ndarray, folds: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns the probabilities of every image, by the run whose fold it is in: float32 [N, K].

    Args:
        runs: the folders, that of fold 1 first.
        labels: integers [N], of train.
        folds: integers [N], from 1.
        num_classes: K.

    Raises:
        InputError: if a run was measured on other images: the data are not those of the run any more.
    """
    probabilities = np.full((len(labels), num_classes), np.nan, np.float32)
    for fold, folder in enumerate(runs, 1):
        with np.load(folder / "predictions.npz") as stored:
            own = folds == fold
            if not np.array_equal(stored["labels"], labels[own]):
                raise InputError(
                    f"{folder}: its predictions are of {len(stored['labels']):,} images with other labels than the "
                    f"{np.count_nonzero(own):,} of fold {fold} of the data; expected a new --workdir where the data "
                    "have changed"
                )
            probabilities[own] = stored["probabilities"]
    return probabilities


def _updates(config: ml_collections.ConfigDict) -> int:
    """Returns the length of a run; 0 where it is not known yet, since it is in epochs."""
    lengths = [phase.train.steps for phase in phase_configs(config)]
    return sum(lengths) if all(lengths) else 0


def _row(fold: int, run: str, result: dict[str, Any]) -> dict[str, Any]:
    test, validation = result["splits"]["test"], result["splits"].get("validation")
    return {
        "fold": fold,
        "run": run,
        "train_examples": result["train_examples"],
        "examples": test["examples"],
        "top1_accuracy": test["top1_accuracy"],
        "loss": test["loss"],
        "validation_top1_accuracy": None if validation is None else validation["top1_accuracy"],
        "selected_step": result["selected_step"],
        "wall_seconds": result["wall_seconds"],
        "git_revision": result.get("git_revision"),
    }


def _write_predictions(
    workdir: pathlib.Path,
    probabilities: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    class_names: tuple[str, ...],
) -> None:
    """Writes `out_of_fold.npz`, in the order of train."""
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities,
        labels=labels,
        folds=folds,
        class_names=np.array(class_names, str),
    )
    files.write(workdir / "out_of_fold.npz", content.getvalue())
