"""Evaluates weights on one split of a data set, and writes a `result.json` as a training run does.

The split is `data.test_split`; no other need exist.
"""

import copy
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections

from tl_jax import checkpointing, console, data, porting
from tl_jax.augment.preprocessing import Preprocessing, make_eval_transform
from tl_jax.compilation import Compilation
from tl_jax.config import check_field, completed, default_config, set_field
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs import overlap, results, run_folder, weights
from tl_jax.runs.network import make_eval_forward, make_model
from tl_jax.runs.numerics import make_compilation
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.resuming import were_square
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.selection import metric_and_mode
from tl_jax.runs.setup import check_config
from tl_jax.runs.skeleton import in_folder
from tl_jax.runs.splits import make_test_split
from tl_jax.training.evaluator import Evaluator

# What may be changed of a run that is evaluated: the data, and where and how they are computed.
_SECTIONS = ("data", "parallel", "report")
# What is at its defaults in the config of an evaluation, whatever it was in that of the run.
NOT_OF_EVALUATION = ("init", "objective", "optim")


def evaluate_run(
    run: pathlib.Path,
    which: str | None,
    workdir: pathlib.Path,
    changes: Sequence[str] = (),
    parts: Parts = NOTHING_GIVEN,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, preprocessed as the run did.

    Args:
        run: a run folder.
        which: "best" or "latest"; None for the one that the run reports on: the best where it held
            out a validation split to choose by, else the latest.
        workdir: the folder of this evaluation.
        changes: assignments to fields of the run's config, such as `data.name=folder:photos`.
        parts: objects that are given instead of by name.

    Raises:
        InputError: if `run` is no run folder or holds no checkpoint that verifies, a change is not to the
            data, or the data have other classes.
    """
    paths = [run / "config.json", run / "preprocessing.json"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"--checkpoint={run}: no {' and no '.join(missing)} there; expected a run folder"
        )
    fields, preprocessing = map(run_folder.read_json, paths)
    config = completed(fields)
    held_out = config.data.validation_fraction or config.data.validation_split
    reported = which is None
    which = which or ("best" if held_out else "latest")
    # The run's own checkpoint and preprocessing: where it started from may be gone, and so may its teacher.
    defaults = default_config()
    defaults.init.head = config.init.head
    for section in NOT_OF_EVALUATION:
        config[section] = defaults[section]
    config.data.image_size = preprocessing["image_size"]
    config.preprocess.resize = preprocessing["resize"]
    config.preprocess.interpolation = preprocessing["interpolation"]
    _change(config, changes, preprocessing)
    _check_not_sealed(run, completed(fields), config)
    names = results.class_names_of(run)
    averaged = _averaged(run) if reported else None
    if averaged is None:
        metric, mode = metric_and_mode(config)
        variables, step = checkpointing.restore_params_and_step(
            run / "checkpoints", which, best_metric=metric, best_mode=mode
        )
    else:
        # Checkpoints hold what was averaged; the weights that the run reports on are in its export.
        exported = completed(fields)
        weights.start_from(exported, run)
        model = make_model(exported, len(names), parts)
        size = preprocessing["image_size"]
        variables, step = weights.make_initial(exported, model, names, size).variables, averaged
        which = "averaged"
    initial = weights.Initial(variables, preprocessing, None)
    # The step, too: the run may have been resumed since its last evaluation.
    record = {"checkpoint": str(run), "which": which, "step": step}
    live = "the live weights of " if config.average.name and averaged is None else ""
    selection = f"{live}the {which} checkpoint of {run}"
    return _evaluate(config, initial, workdir, selection, record, names, parts, run)


def _check_not_sealed(
    run: pathlib.Path, config: ml_collections.ConfigDict, evaluated: ml_collections.ConfigDict
) -> None:
    """Raises InputError if what is evaluated is the test split of a run that is not to be known yet."""
    if not (run / run_folder.SEALED).is_file() or (run / "result.json").is_file():
        return
    of_test = ("name", "test_split", "folds", "fold")
    if all(config.data[field] == evaluated.data[field] for field in of_test):
        raise InputError(
            f"--checkpoint={run}: its test split ({config.data.test_split} of {config.data.name}) is sealed: the run "
            "belongs to an ablation, which reads it when everything is chosen; expected experiments.ablate, or other "
            "data, such as --config.data.name=NAME"
        )


def _saw_squares(
    config: ml_collections.ConfigDict, initial: weights.Initial | None, run: pathlib.Path | None
) -> bool:
    """Returns whether the run brought all images of this data set to squares.

    A split alone may be of one size and be kept so, where the run saw it beside others of several sizes.
    """
    if run is None or initial is None or initial.preprocessing is None:
        return False
    side = initial.preprocessing["resize"] or initial.preprocessing["image_size"]
    named = completed(run_folder.read_json(run / "config.json")).data.name
    return config.data.name == named and were_square(run, side)


def _averaged(run: pathlib.Path) -> int | None:
    """Returns the step whose averaged weights a finished run reports on; None where it reports on live ones."""
    path = run / "result.json"
    result = run_folder.read_json(path) if path.is_file() else {}
    return result["selected_step"] if result.get("averaged") else None


def _change(
    config: ml_collections.ConfigDict, changes: Sequence[str], preprocessing: dict[str, Any]
) -> None:
    """Sets fields of a run's config; the resize keeps its proportion to the image size."""
    for change in changes:
        name = change.partition("=")[0]
        check_field(name)
        if name.partition(".")[0] not in _SECTIONS:
            raise InputError(
                f"--config.{change} with --checkpoint: a run brings its own config, of which "
                f"{', '.join(f'{section}.*' for section in _SECTIONS)} may be changed"
            )
        set_field(config, change)
        if name == "data.image_size":
            size = config.data.image_size or preprocessing["image_size"]
            in_proportion = preprocessing["resize"] * size / preprocessing["image_size"]
            config.preprocess.resize = round(in_proportion)


def evaluate_weights(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Evaluates `config.init.weights`, whose head must fit the data.

    Raises:
        InputError: if the config names no weights or does not keep their head.
    """
    if not config.init.weights or config.init.head != "keep":
        raise InputError(
            f"init.weights={config.init.weights!r}, init.head={config.init.head!r}: evaluation needs "
            "--config.init.weights=FILE and --config.init.head=keep, or --checkpoint=RUN"
        )
    for name in ("reset", "source"):
        if config.init[name]:
            raise InputError(
                f"init.{name}={tuple(config.init[name])}: weights are evaluated as they are; expected ()"
            )
    selection = f"the weights {config.init.weights}, as they are"
    return _evaluate(config, None, workdir, selection, {}, [])


def _evaluate(
    config: ml_collections.ConfigDict,
    initial: weights.Initial | None,
    workdir: pathlib.Path,
    selection: str,
    record: dict[str, Any],
    class_names: Sequence[str],
    parts: Parts = NOTHING_GIVEN,
    run: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint, or the weights of the config where `initial` is None.

    Args:
        config: of the evaluation.
        initial: the variables of a checkpoint.
        workdir: the folder of the evaluation.
        selection: which weights these are, in words.
        record: what `config.json` is to say besides the config.
        class_names: of the checkpoint's head; empty where they are unknown.
        parts: objects that are given instead of by name.
        run: whose checkpoint it is; None where `initial` is.
    """

    def prepared() -> _Prepared:
        check_config(_without_training(config), parts)
        splits = make_test_split(config, parts.source, _saw_squares(config, initial, run))
        split = splits["test"]
        model = make_model(config, len(split.class_names), parts)
        if initial is None:
            size = weights.input_size(config, split.image_shape)
            start = weights.make_initial(config, model, split.class_names, size)
        else:
            start = _with_classes(initial, class_names, split.class_names, selection)
        spec, deviations = weights.make_preprocessing(config, start, split.image_shape)
        mesh = sharding.make_mesh(config.parallel.devices)
        compilation = make_compilation(config, mesh)
        evaluator = Evaluator(
            make_eval_forward(config, model),
            make_eval_transform(spec),
            mesh,
            config.data.eval_batch_size,
            config.data.workers,
            compilation,
        )
        # What does not fit is refused before it is tried.
        evaluator.memory_items(
            start.variables["params"], start.variables["batch_stats"], split, None
        )
        return _Prepared(config, splits, start, spec, deviations, evaluator, mesh, compilation)

    return in_folder(
        config,
        workdir,
        "evaluate",
        prepare=prepared,
        introduce=_introduce,
        make=lambda prepared, folder, _: _measure(prepared, folder, selection, run),
        extra={"evaluate": record},
    )


def _without_training(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config with the defaults of what only training looks at: it may name what is gone by now."""
    checked = copy.deepcopy(config)
    checked.phases = ()
    for section in ("objective", "optim", "solver", "freeze", "augment", "cache"):
        checked[section] = default_config()[section]
    return checked


@dataclasses.dataclass(frozen=True)
class _Prepared:
    config: ml_collections.ConfigDict
    splits: data.Splits
    initial: weights.Initial
    preprocessing: Preprocessing
    deviations: list[str]
    evaluator: Evaluator
    mesh: jax.sharding.Mesh
    compilation: Compilation


def _introduce(prepared: _Prepared, folder: RunFolder) -> None:
    if prepared.initial.port_report is not None:
        results.print_port_report(folder, prepared.initial.port_report)
    results.print_deviations(prepared.deviations)


def _measure(
    prepared: _Prepared, folder: RunFolder, selection: str, run: pathlib.Path | None
) -> dict[str, Any]:
    config, splits = prepared.config, prepared.splits
    notes, seen = list(splits.notes), {}
    if run is not None:
        seen["overlap"] = overlap.find(run, splits["test"])
        notes += overlap.warning(seen["overlap"], splits["test"])
        for line in notes[len(splits.notes) :]:
            console.note(line)
    variables = sharding.replicate(prepared.mesh, prepared.initial.variables)
    began = time.perf_counter()
    measured, logits = prepared.evaluator(
        variables["params"], variables["batch_stats"], splits["test"]
    )
    seconds = time.perf_counter() - began
    result = {
        "splits": {"test": measured},
        "data": {"name": config.data.name, "split": splits.reported},
        "selection": selection,
        "steps": 0,
        "wall_seconds": seconds,
        "images_per_second": measured["examples"] / seconds,
        "numerics": prepared.compilation.facts(),
        "preprocessing": weights.describe_preprocessing(prepared.preprocessing),
        "deviations": prepared.deviations,
        "data_notes": notes,
        **results.skipped_of(splits),
        **seen,
    }
    return results.finish(folder, config, splits["test"], logits, result)


def _with_classes(
    initial: weights.Initial, names: Sequence[str], class_names: Sequence[str], source: str
) -> weights.Initial:
    """Returns a checkpoint whose head has the classes of the data, in their order."""
    order, deviations = weights.match_head(names, class_names, source)
    heads = len(initial.variables["params"]["head"]["bias"])
    # Not said by names where only one of the two has them.
    if heads != len(class_names):
        raise InputError(f"{source} has {heads} classes, the data have {len(class_names)}")
    variables = initial.variables
    if order is not None:
        variables = porting.reorder_head(variables, order)
    return weights.Initial(variables, initial.preprocessing, None, tuple(deviations))
