"""Evaluates weights on one split of a data set, and writes a `result.json` as a training run does.

A run, on the data it was trained for, or on other data with the same classes:
    python -m experiments.evaluate --checkpoint=runs/cifar10 --workdir=runs/cifar10_again
    python -m experiments.evaluate --checkpoint=runs/photos --config.data.name=folder:more_photos \
        --workdir=runs/more_photos
Any weights whose head fits, on any data:
    python -m experiments.evaluate --config=configs/cifar10_resnet20.py --config.init.weights=FILE \
        --config.init.head=keep --workdir=runs/evaluated

The split is `data.test_split`; no other need exist.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import flags

from configs import base
from experiments import assembly, cli, config_fields, outcome, weights
from experiments.evaluator import Evaluator
from tl_jax import checkpointing, data, models, porting, sharding
from tl_jax.errors import InputError
from tl_jax.preprocessing import make_eval_transform
from tl_jax.run_folder import RunFolder

_CONFIG = cli.define_config()
_WORKDIR = cli.define_workdir()
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run folder, instead of --config.")
_WHICH = flags.DEFINE_enum(
    "which",
    None,
    ["best", "latest"],
    "Which of its checkpoints; by default the one that the run reports on.",
)
# What may be changed of a run that is evaluated: the data, and where and how they are computed.
_SECTIONS = ("data", "parallel", "report")


def main() -> None:
    """Evaluates what the flags name."""
    workdir = cli.required_path(_WORKDIR)
    if _CHECKPOINT.value:
        if _CONFIG.value is not None:
            raise InputError("--checkpoint and --config: give one; a run brings its own config")
        run = cli.required_path(_CHECKPOINT)
        evaluate_run(run, _WHICH.value, workdir, cli.checkpoint_overrides())
    else:
        evaluate_weights(cli.required(_CONFIG), workdir)


def evaluate_run(
    run: pathlib.Path, which: str | None, workdir: pathlib.Path, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, preprocessed as the run did.

    Args:
        run: a run folder.
        which: "best" or "latest"; None for the one that the run reports on: the best where it held
            out a validation split to choose by, else the latest.
        workdir: the folder of this evaluation.
        changes: assignments to fields of the run's config, such as `data.name=folder:photos`.

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
    fields, preprocessing = (json.loads(path.read_text()) for path in paths)
    config = config_fields.completed(fields, base.get_config())
    held_out = config.data.validation_fraction or config.data.validation_split
    which = which or ("best" if held_out else "latest")
    # The run's own checkpoint and preprocessing: where it started from may be gone.
    config.init.weights = ""
    config.data.image_size = preprocessing["image_size"]
    config.preprocess.resize = preprocessing["resize"]
    config.preprocess.interpolation = preprocessing["interpolation"]
    _change(config, changes, preprocessing)
    variables, step = checkpointing.restore_params_and_step(run / "checkpoints", which)
    initial = weights.Initial(variables, preprocessing, None)
    # The step, too: the run may have been resumed since its last evaluation.
    record = {"checkpoint": str(run), "which": which, "step": step}
    names = outcome.class_names_of(run)
    selection = f"the {which} checkpoint of {run}"
    return _evaluate(config, initial, workdir, selection, record, names)


def _change(
    config: ml_collections.ConfigDict, changes: Sequence[str], preprocessing: dict[str, Any]
) -> None:
    """Sets fields of a run's config; the resize keeps its proportion to the image size."""
    for change in changes:
        name = change.partition("=")[0]
        config_fields.check_field(config, name)
        if name.partition(".")[0] not in _SECTIONS:
            raise InputError(
                f"--config.{change} with --checkpoint: a run brings its own config, of which "
                f"{', '.join(f'{section}.*' for section in _SECTIONS)} may be changed"
            )
        config_fields.set_field(config, change)
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
    selection = f"the weights {config.init.weights}, as they are"
    return _evaluate(config, None, workdir, selection, {}, [])


def _evaluate(
    config: ml_collections.ConfigDict,
    initial: weights.Initial | None,
    workdir: pathlib.Path,
    selection: str,
    record: dict[str, Any],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Evaluates a checkpoint, or the weights of the config where `initial` is None.

    Args:
        config: of the evaluation.
        initial: the variables of a checkpoint.
        workdir: the folder of the evaluation.
        selection: which weights these are, in words.
        record: what `config.json` is to say besides the config.
        class_names: of the checkpoint's head; empty where they are unknown.
    """
    given = {**json.loads(config.to_json()), "evaluate": record}
    identity = config_fields.identity(config, "evaluate")
    if RunFolder.look(workdir, given, identity) == "finished":
        return outcome.read(workdir, given, identity)
    is_primary = jax.process_index() == 0
    with contextlib.ExitStack() as held:
        with sharding.together():
            assembly.check(config)
            splits = assembly.make_test_split(config)
            split = splits["test"]
            model = assembly.make_model(config, len(split.class_names))
            if initial is None:
                initial = weights.make_initial(config, model, split.class_names)
            else:
                initial = _with_classes(initial, class_names, split.class_names, selection)
            spec, deviations = weights.make_preprocessing(config, initial, split.image_shape)
            mesh = sharding.make_mesh(config.parallel.devices)
            evaluator = Evaluator(
                models.make_forward(model),
                make_eval_transform(spec),
                mesh,
                config.data.eval_batch_size,
                config.data.workers,
            )
            # What does not fit is refused before it is tried.
            initial_params, initial_stats = (
                initial.variables[name] for name in ("params", "batch_stats")
            )
            evaluator.memory_items(initial_params, initial_stats, split, None)
            data.wait_for({"test": split})
            folder = held.enter_context(
                RunFolder.open(workdir, given, is_primary=is_primary, identity=identity)
            )
            if is_primary:
                outcome.tell_deviations(deviations)
                if initial.port_report is not None:
                    outcome.tell_port(folder, initial.port_report)
        variables = sharding.replicate(mesh, initial.variables)
        began = time.perf_counter()
        measured, logits = evaluator(variables["params"], variables["batch_stats"], split)
        seconds = time.perf_counter() - began
        result = {
            "splits": {"test": measured},
            "data": {"name": config.data.name, "split": splits.reported},
            "selection": selection,
            "steps": 0,
            "wall_seconds": seconds,
            "images_per_second": measured["examples"] / seconds,
            "preprocessing": weights.describe_preprocessing(spec),
            "deviations": deviations,
            "data_notes": splits.notes,
        }
        return outcome.finish(folder, config, split, logits, result)


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


if __name__ == "__main__":
    cli.run(main)
