"""Whole runs of this library: a linear probe on stored features, and fine-tuning to an accuracy."""

import json
import pathlib
import shutil
import time
from typing import Any

import jax

import tl_jax
from benchmarks import record
from benchmarks.accelerator import synthetic
from tl_jax.runs.sweep import run as run_sweep

# Of `result.json`, what says where the time went.
_TIMES = (
    "wall_seconds",
    "images_per_second",
    "waiting_share",
    "device_idle_share",
    "dispatch",
    "steps",
    "train_examples",
    "cache",
)


def linear_probe(
    scratch: pathlib.Path, data: str, data_dir: str, epochs: int, cold: bool
) -> dict[str, Any]:
    """Returns times and accuracies of a probe in this process, as `configs/cifar10_linear_probe.py` says.

    Args:
        scratch: folder for runs, stored features, decoded images and compiled programs.
        data: name of a data set.
        data_dir: of tfds.
        epochs: of the probe.
        cold: whether nothing of an earlier run is there; otherwise what it left is used.
    """
    began = time.perf_counter()
    synthetic.register()
    folder = scratch / "linear_probe"
    if cold:
        shutil.rmtree(folder, ignore_errors=True)
    _keep_programs(folder / "programs")
    config = tl_jax.load_config(record.REPOSITORY / "configs" / "cifar10_linear_probe.py")
    _name_data(config, data, data_dir)
    config.data.cache_dir, config.cache.dir = str(folder / "decoded"), str(folder / "features")
    config.train.epochs = float(epochs)
    config.parallel.devices = 1
    workdir = folder / ("cold" if cold else "warm")
    run = tl_jax.finetune(config, workdir)
    return {
        "epochs": epochs,
        "data": data.partition(":")[0],
        "seconds": time.perf_counter() - began,
        **_result(run.result),
    }


def fine_tune(
    scratch: pathlib.Path,
    began: float,
    data: str,
    data_dir: str,
    epochs: int,
    batch_size: int,
    weights: str,
) -> dict[str, Any]:
    """Returns the accuracy on held-out images after each epoch of fine-tuning, with the time it took.

    Args:
        scratch: folder for the run.
        began: when this process did, on the clock of `time.perf_counter`.
        data: name of a data set.
        data_dir: of tfds.
        epochs: of training.
        batch_size: B.
        weights: as `init.weights`, of the packaged ResNet-20's kind.
    """
    synthetic.register()
    config = tl_jax.default_config(model__name="resnet20_cifar", init__weights=weights)
    _name_data(config, data, data_dir)
    if jax.default_backend() != "cpu":
        config.model.dtype = "bfloat16"  # as the network that it is compared with
    config.data.batch_size = batch_size
    config.data.cache_dir = ""
    config.data.validation_fraction = 0.1
    config.augment.flip = not data.startswith("digits")
    config.optim.learning_rate = 0.05 * batch_size / 128
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.warmup_epochs = min(2.0, epochs / 4)
    config.train.epochs = float(epochs)
    config.parallel.devices = 1
    config.report.html = config.report.tensorboard = False
    curve: list[dict[str, float]] = []

    def mark(step: int, split: str, metrics: Any) -> None:
        if split == "validation":
            seconds = time.perf_counter() - began
            accuracy = float(metrics["top1_accuracy"])
            curve.append({"step": step, "accuracy": accuracy, "seconds_from_start": seconds})

    workdir = scratch / "fine_tuned"
    shutil.rmtree(workdir, ignore_errors=True)
    run = tl_jax.finetune(config, workdir, callbacks=[mark])
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    trained = {line["step"]: line["seconds"] for line in lines if line["split"] == "validation"}
    steps_per_epoch = run.result["train_examples"] / batch_size
    for point in curve:
        point["epoch"] = round(point["step"] / steps_per_epoch, 2)
        point["seconds_of_training"] = trained[point["step"]]
    return {
        "weights": "packaged" if weights.startswith("resnet20_cifar.") else "given",
        "data": data.partition(":")[0],
        "batch_size": batch_size,
        "curve": curve,
        **_result(run.result),
    }


def sweep(
    scratch: pathlib.Path,
    data: str,
    data_dir: str,
    members: int,
    width: int,
    steps: int,
) -> dict[str, Any]:
    """Returns the seconds in which members that train convolutions are trained, so many at once.

    The last stage of the packaged network and its head are trained on stored activations.

    Args:
        scratch: folder for runs, stored activations, decoded images and compiled programs.
        data: name of a data set.
        data_dir: of tfds.
        members: how many learning rates.
        width: members at once.
        steps: updates of each.
    """
    synthetic.register()
    folder = scratch / "sweep"
    _keep_programs(folder / "programs")
    config = tl_jax.load_config(record.REPOSITORY / "configs" / "cifar10_linear_probe.py")
    _name_data(config, data, data_dir)
    config.data.cache_dir, config.cache.dir = str(folder / "decoded"), str(folder / "features")
    config.freeze.strategy, config.cache.boundary = "up_to:stage2", "stage2"
    config.train.epochs, config.train.steps = 0.0, steps
    config.train.eval_every_epochs = 0.0
    config.report.html = config.report.tensorboard = False
    config.sweep.learning_rate = tuple(0.01 * (place + 1) for place in range(members))
    config.sweep.width = width
    seconds = {}
    # The second time every program is there.
    for name in ("first", "again"):
        workdir = folder / f"{name}_{width}"
        shutil.rmtree(workdir, ignore_errors=True)
        seconds[name] = run_sweep(config, workdir)["seconds"]["train"]
    return {"members": members, "width": width, "steps": steps, "seconds": seconds}


def _name_data(config: tl_jax.Config, data: str, data_dir: str) -> None:
    config.data.name = data
    if data_dir:
        config.data.data_dir = data_dir


def _keep_programs(folder: pathlib.Path) -> None:
    """Compiled programs are kept, as those of the commands are."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _result(result: dict[str, Any]) -> dict[str, Any]:
    accuracies = {
        f"{name}_top1": split["top1_accuracy"] for name, split in result["splits"].items()
    }
    return {**accuracies, **{name: result.get(name) for name in _TIMES}}
