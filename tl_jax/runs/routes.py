"""Classic classifiers on the features of a network: LDA, logistic regression, SVMs and k-NN, with PCA or without.

Hyperparameters are chosen by stratified cross-validation inside the training images; what is chosen is fitted to
all of them, and test is read once for each route, at the end. Images that are held out as validation
(`data.validation_fraction`, `data.validation_split`) are training images here, since the folds choose; but not
with `data.examples_per_class`, where the few labelled images are all that a route sees.
"""

import dataclasses
import functools
import io
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from tl_jax import console, files, reporting
from tl_jax.config import check, flat, naming_fields
from tl_jax.data import Splits
from tl_jax.errors import InputError, unknown
from tl_jax.features.saving import Features
from tl_jax.reporting import intervals
from tl_jax.runs import image_features, results, same_test_split, scatter
from tl_jax.runs.finished import Run, load_run
from tl_jax.runs.run_folder import RunFolder, environment_facts
from tl_jax.runs.setup import Setup
from tl_jax.runs.skeleton import facts_of, in_folder, introduce_inputs
from tl_jax.training import classic, metrics
from tl_jax.training.loops import Stopped


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Fits the routes of `config.routes` in `workdir`; returns `result.json`, its accuracy that of the chosen route.

    Args:
        config: of which model, weights and data count, and the sections `features` and `routes`.
        workdir: the run folder.
        stop_requested: whether to stop; asked while features are computed and between routes.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop; nothing but the activations is kept.
    """
    began = time.perf_counter()
    check(config)
    methods, grid, search = _methods(config), _grid(config), _search(config)
    return in_folder(
        config,
        workdir,
        "routes",
        prepare=lambda: _prepare(config, grid, search),
        introduce=lambda prepared, folder: introduce_inputs(prepared.setup, folder),
        make=lambda prepared, folder, _: _make(
            prepared,
            folder,
            functools.partial(classic.find, grid=prepared.grid, search=search),
            methods,
            search,
            stop_requested,
            began,
        ),
        read=results.reader(_described),
    )


def _methods(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    methods = tuple(config.routes.methods)
    for method in methods:
        if method not in classic.METHODS:
            raise unknown("routes.methods", method, classic.METHODS)
    if not methods or len(set(methods)) < len(methods):
        raise InputError(f"routes.methods={methods}: expected one method at least, each once")
    return methods


def _grid(config: ml_collections.ConfigDict) -> classic.Grid:
    section = config.routes
    names = [field.name for field in dataclasses.fields(classic.Grid)]
    values: dict[str, Any] = {
        name: tuple(section[name]) if isinstance(section[name], tuple | list) else section[name]
        for name in names
    }
    with naming_fields(config, *(f"routes.{name}" for name in names)):
        return classic.Grid(**values)


def _search(config: ml_collections.ConfigDict) -> classic.Search:
    section = config.routes
    return classic.Search(section.folds, config.seed, section.search_examples, section.jobs)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """Routes that are checked to fit their data.

    Attributes:
        setup: of the features.
        train: the splits that routes are fitted to.
        grid: what is tried.
        finetuned: a run that is shown beside them.
    """

    setup: Setup
    train: tuple[str, ...]
    grid: classic.Grid
    finetuned: Run | None

    @property
    def splits(self) -> Splits:
        """The data, whose images may still be decoding."""
        return self.setup.splits


def _prepare(
    config: ml_collections.ConfigDict, grid: classic.Grid, search: classic.Search
) -> _Prepared:
    setup = image_features.setup_of(config)
    splits = setup.splits
    few = config.data.examples_per_class
    names = ("train",) if few or "validation" not in splits else ("train", "validation")
    labels = np.concatenate([splits[name].labels for name in names])
    fields = {"folds": "routes.folds", "examples": "routes.search_examples"}
    with naming_fields(config, **fields):
        classic.check_counts(labels, search, splits["train"].class_names)
    fitted = classic.least_in_training(labels, search)
    width = image_features.count(setup, config.features.pool)
    if grid.components > min(width, fitted):
        raise InputError(
            f"routes.pca={grid.components}: there are {width:,} features and {fitted:,} images in a fold; expected "
            f"{min(width, fitted):,} components at most"
        )
    neighbors = tuple(number for number in grid.knn_neighbors if number <= fitted)
    if not neighbors:
        raise InputError(
            f"routes.knn_neighbors={grid.knn_neighbors}: a fold is fitted to {fitted:,} images; expected "
            f"{fitted:,} neighbours at most"
        )
    if neighbors != grid.knn_neighbors and "knn" in config.routes.methods:
        console.note(
            f"routes.knn_neighbors={grid.knn_neighbors}: a fold is fitted to {fitted:,} images, so that {neighbors} "
            "are tried"
        )
    grid = dataclasses.replace(grid, knn_neighbors=neighbors)
    return _Prepared(setup, names, grid, _finetuned(config, setup))


def _finetuned(config: ml_collections.ConfigDict, setup: Setup) -> Run | None:
    """Returns the run of `routes.finetuned`, which must have been measured on the same test split."""
    given = config.routes.finetuned
    if not given:
        return None
    try:
        found = load_run(given)
    except InputError as error:
        raise InputError(f"routes.finetuned={given}: {error}") from error
    here, there = flat(config), flat(found.config)
    differing = [
        f"{name}={there[name]}, not {here[name]}"
        for name in same_test_split.differing_fields(here, there)
    ]
    split = setup.splits["test"]
    predictions = _predictions(found)
    if not differing and found.class_names != split.class_names:
        differing = ["other classes"]
    if not differing and not np.array_equal(predictions["labels"], split.labels):
        differing = [
            f"{len(predictions['labels']):,} test images with their labels, not these {len(split):,}"
        ]
    if differing:
        raise InputError(
            f"routes.finetuned={given} was measured on another test split: it has {'; '.join(differing)}; expected "
            "a run on the same one"
        )
    return found


def _predictions(found: Run) -> dict[str, np.ndarray]:
    try:
        with np.load(found.workdir / "predictions.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in ("labels", "probabilities")}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"routes.finetuned={found.workdir}: predictions.npz cannot be read ({error}); expected that of a run"
        ) from error


def _make(
    prepared: _Prepared,
    folder: RunFolder,
    find: Callable[..., classic.Route],
    methods: tuple[str, ...],
    search: classic.Search,
    stop_requested: Callable[[], bool],
    began: float,
) -> dict[str, Any]:
    options = prepared.setup.config
    found, setup = image_features.compute(prepared.setup, options.features.pool, stop_requested)
    train, test = found[prepared.train[0]], found["test"]
    for name in prepared.train[1:]:
        train = train.joined(found[name])
    rows, routes, predicted = [], {}, {}
    for method in methods:
        if stop_requested():
            raise Stopped(0)
        console.say(f"{method}: searching ...")
        route = find(method, train.features, train.labels)
        predicting = time.perf_counter()
        predicted[method] = route.predict(test.features)
        predict_seconds = time.perf_counter() - predicting
        routes[method] = route
        rows.append(
            _row(route, test.labels, predicted[method], len(test.class_names), predict_seconds)
        )
        console.say(f"{method}: {_summary(rows[-1])}")
    best = max(rows, key=lambda row: row["cv_accuracy"])  # of equals the first
    beside = None if prepared.finetuned is None else _beside(prepared.finetuned)
    if options.routes.scatter:
        scatter.save(folder, train, test, options.routes.scatter)
    _write_predictions(folder, test, predicted)
    content = {
        "title": f"Classic routes: {options.model.name} on {options.data.name}",
        "features": {
            "boundary": setup.boundary,
            "pool": options.features.pool,
            "count": train.features.shape[1],
        },
        "rows": rows,
        "finetuned": beside,
        "chosen": best["method"],
        "folds": search.folds,
        "examples": {
            "train": len(train),
            "of": list(prepared.train),
            "searched": len(classic.searched(train.labels, search)),
            "test": len(test),
        },
        "reported": setup.splits.reported,
        "settings": {method: route.settings for method, route in routes.items()},
    }
    table = reporting.write_routes(folder.path, content)
    reporting.print_table(content["title"], table, level="normal")
    result = {
        "status": "finished",
        "splits": {"test": _test_of(best, len(test))},
        "selection": _selection(content),
        "routes": rows,
        "finetuned": beside,
        "train_examples": len(train),
        "class_names": list(test.class_names),
        "wall_seconds": time.perf_counter() - began,
        **{name: value for name, value in facts_of(setup, []).items() if name != "parameters"},
        **environment_facts(),
    }
    folder.finish(result)
    console.say(result["selection"])
    console.say(f"{folder.path / 'routes.html'}: {_described(result)}")
    return result


def _row(
    route: classic.Route,
    labels: np.ndarray,
    predicted: np.ndarray,
    num_classes: int,
    predict_seconds: float,
) -> dict[str, Any]:
    return {
        "method": route.method,
        "chosen": route.chosen,
        "components": route.components,
        "cv_accuracy": route.accuracy,
        "cv_accuracy_std": route.accuracy_std,
        "searched_examples": route.examples,
        **_scores(labels, predicted, num_classes),
        "search_seconds": route.search_seconds,
        "fit_seconds": route.fit_seconds,
        "predict_seconds": predict_seconds,
        "converged": route.converged,
        "not_converged_in_search": route.not_converged,
    }


def _beside(found: Run) -> dict[str, Any]:
    """Returns the row of the run that is shown beside the routes."""
    stored = _predictions(found)
    probabilities = stored["probabilities"]
    return {
        "method": f"run {found.workdir.name}",
        "run": str(found.workdir),
        **_scores(stored["labels"], probabilities.argmax(-1), probabilities.shape[-1]),
        "fit_seconds": found.result["wall_seconds"],
    }


def _scores(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, Any]:
    accuracy = float(np.mean(labels == predicted))
    return {
        "top1_accuracy": accuracy,
        "top1_interval": list(intervals.of_accuracy(accuracy, len(labels))),
        **metrics.class_averages(labels, predicted, num_classes),
    }


def _test_of(row: Mapping[str, Any], examples: int) -> dict[str, Any]:
    names = ("top1_accuracy", "top1_interval", *metrics.CLASS_AVERAGES)
    return {**{name: row[name] for name in names}, "examples": examples}


def _selection(content: Mapping[str, Any]) -> str:
    counts, rows = content["examples"], content["rows"]
    best = next(row for row in rows if row["method"] == content["chosen"])
    part = ""
    if counts["searched"] < counts["train"]:
        part = f", on {counts['searched']:,} of them"
    of = " and ".join(counts["of"])
    return (
        f"{best['method']}, the best of {len(rows)} by {content['folds']}-fold cross-validation inside the "
        f"{counts['train']:,} images of {of}{part}; its setting was fitted to all of them; {content['reported']} "
        "was read once for the chosen setting of each route, at the end"
    )


def _write_predictions(
    folder: RunFolder, test: Features, predicted: Mapping[str, np.ndarray]
) -> None:
    """Writes what each route says of the test images, under its name."""
    arrays = {f"{method}_predicted": classes for method, classes in predicted.items()}
    content = io.BytesIO()
    np.savez(
        content,
        labels=test.labels,
        class_names=np.array(test.class_names, str),
        **arrays,  # type: ignore[arg-type]
    )
    files.write(folder.path / "routes.npz", content.getvalue())


def _described(result: dict[str, Any]) -> str:
    return f"test top-1 {intervals.single_run(result['splits']['test'])}"


def _summary(row: Mapping[str, Any]) -> str:
    # matplotlib comes with it: not before it is needed.
    from tl_jax.reporting.routes import not_converged, setting

    stopped = not_converged(row)
    return (
        f"{setting(row)}; {100 * row['cv_accuracy']:.2f}% in cross-validation, search {row['search_seconds']:.1f} s, "
        f"fit {row['fit_seconds']:.1f} s{f'; {stopped}' if stopped else ''}"
    )
