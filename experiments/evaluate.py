"""Evaluates weights on the test split of a data set; writes the `result.json` that a training run writes.

A run, on the data it was trained for:
    python -m experiments.evaluate --checkpoint=runs/cifar10 --workdir=runs/cifar10_again
Any weights whose head fits, on any data:
    python -m experiments.evaluate --config=configs/cifar10_resnet20.py --config.init.weights=FILE \
        --config.init.head=keep --workdir=runs/evaluated
"""

import contextlib
import json
import pathlib
import time
from typing import Any

import jax
import ml_collections
from absl import flags

from configs import base
from experiments import assembly, cli, config_fields, outcome, weights
from experiments.evaluator import Evaluator
from tl_jax import checkpointing, data, models, sharding
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


def main() -> None:
    """Evaluates what the flags name."""
    workdir = cli.required_path(_WORKDIR)
    if _CHECKPOINT.value:
        if _CONFIG.value is not None:
            raise InputError("--checkpoint and --config: give one; a run brings its own config")
        evaluate_run(cli.required_path(_CHECKPOINT), _WHICH.value, workdir)
    else:
        evaluate_weights(cli.required(_CONFIG), workdir)


def evaluate_run(run: pathlib.Path, which: str | None, workdir: pathlib.Path) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, preprocessed as the run did.

    Args:
        run: a run folder.
        which: "best" or "latest"; None for the one that the run reports on: the best where it held
            out a validation split to choose by, else the latest.
        workdir: the folder of this evaluation.

    Raises:
        InputError: if `run` is no run folder or holds no checkpoint that verifies.
    """
    paths = [run / "config.json", run / "preprocessing.json"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"--checkpoint={run}: no {' and no '.join(missing)} there; expected a run folder"
        )
    fields, preprocessing = (json.loads(path.read_text()) for path in paths)
    config = config_fields.completed(fields, base.get_config())
    # The run's own checkpoint and preprocessing: where it started from may be gone.
    config.init.weights = ""
    config.data.image_size = preprocessing["image_size"]
    config.preprocess.resize = preprocessing["resize"]
    held_out = config.data.validation_fraction or config.data.validation_split
    which = which or ("best" if held_out else "latest")
    variables = checkpointing.restore_params(run / "checkpoints", which)
    initial = weights.Initial(variables, preprocessing, None)
    record = {"checkpoint": str(run), "which": which}
    return _evaluate(config, initial, workdir, f"the {which} checkpoint of {run}", record)


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
    return _evaluate(config, None, workdir, f"the weights {config.init.weights}, as they are", {})


def _evaluate(
    config: ml_collections.ConfigDict,
    initial: weights.Initial | None,
    workdir: pathlib.Path,
    selection: str,
    record: dict[str, str],
) -> dict[str, Any]:
    given = {**json.loads(config.to_json()), "evaluate": record}
    if RunFolder.look(workdir, given) == "finished":
        return outcome.read(workdir)
    is_primary = jax.process_index() == 0
    with contextlib.ExitStack() as held:
        with sharding.together():
            splits = assembly.make_splits(config)
            split = splits["test"]
            model = assembly.make_model(config, len(split.class_names))
            if initial is None:
                initial = weights.make_initial(config, model)
            spec, deviations = weights.make_preprocessing(config, initial, split.image_shape)
            mesh = sharding.make_mesh(config.parallel.devices)
            evaluator = Evaluator(
                models.make_forward(model),
                make_eval_transform(spec),
                mesh,
                config.data.eval_batch_size,
                config.data.workers,
            )
            data.wait_for({"test": split})
            folder = held.enter_context(RunFolder.open(workdir, given, is_primary=is_primary))
            if is_primary and initial.port_report is not None:
                outcome.tell_port(folder, initial.port_report)
        variables = sharding.replicate(mesh, initial.variables)
        began = time.perf_counter()
        measured, logits = evaluator(variables["params"], variables["batch_stats"], split)
        seconds = time.perf_counter() - began
        result = {
            "splits": {"test": measured},
            "selection": selection
            + (f", on {splits.reported}" if splits.reported != "test" else ""),
            "steps": 0,
            "wall_seconds": seconds,
            "images_per_second": measured["examples"] / seconds,
            "preprocessing": weights.describe_preprocessing(spec),
            "deviations": deviations,
            "data_notes": splits.notes,
        }
        return outcome.finish(folder, config, split, logits, result)


if __name__ == "__main__":
    cli.run(main)
