"""What a run leaves behind: its predictions, weights, report and, last of all, `result.json`."""

import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, files, models, porting, protocols, reporting
from tl_jax.config import completed
from tl_jax.data import Split, Splits
from tl_jax.errors import InputError
from tl_jax.reporting import SCATTER_FILE, intervals, tables
from tl_jax.runs import weights
from tl_jax.runs.parts import is_own
from tl_jax.runs.run_folder import SEALED, Identity, RunFolder, environment_facts, read_json
from tl_jax.runs.setup import Setup

CLASS_NAMES = "class_names.json"  # of every run folder, in the order of the head
SKIPPED = "skipped_images.json"  # of runs with data.unreadable=skip
_SHOWN = 10


def finish(
    folder: RunFolder,
    config: ml_collections.ConfigDict,
    split: Split,
    logits: np.ndarray,
    result: dict[str, Any],
) -> dict[str, Any]:
    """Writes predictions, report and `result.json` (last: it says that the run is finished).

    Args:
        folder: of the run; processes other than the primary one write nothing.
        config: of the run.
        split: the test split, of N examples.
        logits: of its examples, float32 [N, K].
        result: what is particular to this run; the 95% interval of each split's accuracy
            (`top1_interval`, Wilson's) and the facts of the environment are added.

    Returns:
        What `result.json` holds.
    """
    result = {
        "status": "finished",
        **result,
        "splits": {name: _with_interval(split) for name, split in result["splits"].items()},
        "class_names": list(split.class_names),
        **environment_facts(),
    }
    if jax.process_index() == 0:
        _write_predictions(folder.path, split, logits, config.report.mistakes)
        if config.report.html:
            reporting.write_report(folder.path, result=result)
        folder.finish(result)
        for line in protocols.lines(result.get("protocol")):
            console.say(line)
        of_what = " of training" if result.get("steps") else ""
        if of_what and result.get("cache"):
            of_what += " and storing activations"
        if result.get("resumed_at_step"):
            of_what += " since its first start"
        where = folder.path / "report.html" if config.report.html else folder.path
        console.say(f"{where}: {describe(result)}; {result['wall_seconds']:.1f} s{of_what}")
    return result


def sealed(folder: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    """Writes and returns what `sealed.json` holds: a result without the test split."""
    result = {
        "status": "sealed",
        **result,
        "splits": {name: _with_interval(split) for name, split in result["splits"].items()},
        **environment_facts(),
    }
    folder.write_json(SEALED, result)
    console.say(f"{folder.path}: {describe(result)}; test has not been read")
    return result


def read_sealed(
    workdir: pathlib.Path, record: dict[str, Any], identity: Identity
) -> dict[str, Any] | None:
    """Returns what is known of a run without its test split, if all its updates are made; else None.

    Args:
        workdir: the run folder, which need not exist.
        record: the config, as the folder would hold it.
        identity: see `run_folder.RunFolder.open`.

    Raises:
        InputError: if the folder is that of another run.
    """
    state = RunFolder.look(workdir, record, identity)
    # That of a run that was sealed stays as it was when test is read.
    names = {"interrupted": (SEALED,), "finished": (SEALED, "result.json")}.get(state, ())
    path = next((workdir / name for name in names if (workdir / name).is_file()), None)
    if path is None:
        return None
    found = read_result(path)
    found["splits"] = {split: of for split, of in found["splits"].items() if split != "test"}
    return found


def read_result(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a result of a run holds.

    Raises:
        InputError: if the file is missing, or no result.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("splits"), dict):
        raise InputError(f"{path} is no result of a run; it is left as it is")
    return found


def read(workdir: pathlib.Path, record: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """Returns the result of a finished run, having said that it is finished.

    Its report is written again where `report.html` is on and `report` differs from that of the folder.

    Args:
        workdir: the run folder.
        record: the config, as the folder holds it.
        identity: see `run_folder.RunFolder.open`.
    """
    result = json.loads((workdir / "result.json").read_text())
    if jax.process_index() != 0:
        return result
    console.say(f"{workdir} is finished: {describe(result)}")
    wanted = record["report"]
    # A folder of an earlier version lacks fields of today.
    stored = completed(json.loads((workdir / "config.json").read_text())).report.to_dict()
    if wanted["html"] and (stored != wanted or not (workdir / "report.html").is_file()):
        with RunFolder.open(workdir, record, identity=identity) as folder:
            reporting.write_report(folder.path, result=result)
        kept = ""
        if wanted["mistakes"] != stored["mistakes"]:
            with np.load(workdir / "predictions.npz") as saved:
                count = len(saved["mistake_indices"])
            kept = (
                f"; report.mistakes={wanted['mistakes']} applies to new runs only: the report shows the "
                f"{count} mistakes that predictions.npz holds"
            )
        if wanted["protocol"] != stored["protocol"]:
            kept += f"; report.protocol={wanted['protocol']} applies to new runs only"
        if wanted["scatter"] and not (workdir / SCATTER_FILE).is_file():
            kept += f"; report.scatter={wanted['scatter']} applies to new runs only"
        console.say(f"{workdir / 'report.html'} is written again{kept}")
    return result


def class_names_of(run: pathlib.Path) -> list[str]:
    """Returns the names of the classes of a run's head, in its order; empty where its folder has none."""
    for name in (CLASS_NAMES, "result.json"):
        if (run / name).is_file():
            names = read_json(run / name).get("class_names", [])
            if names:
                return names
    return weights.class_names_of_weights(str(run / weights.EXPORTED))


def skipped_of(splits: Splits) -> dict[str, Any]:
    """Returns what `result.json` says of images that were left out; empty where they were not looked for."""
    if splits.skipped is None:
        return {}
    count = len(splits.skipped)
    return {"data_skipped": {"count": count, "first": list(splits.skipped[:_SHOWN])}}


def write_skipped(folder: RunFolder, splits: Splits) -> None:
    """Writes which images are left out, for a run that is resumed."""
    if splits.skipped is not None:
        folder.write_json(SKIPPED, list(splits.skipped))


def print_deviations(deviations: Sequence[str]) -> None:
    """Prints a line for each deviation from what the weights were trained with."""
    for line in deviations:
        console.say(f"deviation: {line}")


def print_port_report(folder: RunFolder, report: porting.PortReport) -> None:
    """Writes the account of ported weights, tensor by tensor, and prints it by group."""
    folder.write_json("port_report.json", report.to_json())
    console.say(f"weights: {report.summary()}")
    reporting.print_table("Ported weights (port_report.json: every tensor)", report.groups())


def describe(result: dict[str, Any]) -> str:
    """Returns a line about a result: accuracy, its 95% interval and the number of images of each split.

    That of an evaluation has balanced accuracy and macro F1, too.
    """
    labels, averages = {}, ""
    if "data" in result:
        labels["test"] = f"{result['data']['name']} {result['data']['split']}"
        averages = "".join(
            f", {tables.label(name)} {100 * result['splits']['test'][name]:.2f}%"
            for name in ("balanced_accuracy", "macro_f1")
            if name in result["splits"]["test"]
        )
    measured = "; ".join(
        f"{labels.get(name, name)} top-1 {intervals.single_run(split)}"
        for name, split in result["splits"].items()
    )
    return measured + averages


def reader(
    described: Callable[[dict[str, Any]], str],
) -> Callable[[pathlib.Path, dict[str, Any], Identity], dict[str, Any]]:
    """Returns what reads the result of a finished run that has no report, having said that it is finished.

    Args:
        described: the line about a result.
    """

    def read(workdir: pathlib.Path, _: dict[str, Any], __: Identity) -> dict[str, Any]:
        result = json.loads((workdir / "result.json").read_text())
        console.say(f"{workdir} is finished: {described(result)}")
        return result

    return read


def _with_interval(split: dict[str, Any]) -> dict[str, Any]:
    interval = None
    if np.isfinite(split["top1_accuracy"]):
        interval = list(intervals.of_accuracy(split["top1_accuracy"], split["examples"]))
    return {**split, "top1_interval": interval}


def save_weights(folder: RunFolder, setup: Setup, variables: dict[str, Any]) -> None:
    """Writes `weights.safetensors`, which PyTorch users load and `init.weights` takes.

    Its metadata says what the network is and what its input must look like.
    """
    config = setup.config
    name = config.model.name
    naming = "tl_jax" if is_own(name) else models.get_architecture(name).naming
    description = {
        "model": name,
        "stem": config.model.stem,
        "class_names": list(setup.splits["train"].class_names),
        "preprocessing": weights.describe_preprocessing(setup.preprocessing),
    }
    porting.save_state_dict(
        folder.path / weights.EXPORTED,
        porting.export_state_dict(
            jax.device_get(models.merged_variables(variables)), naming=naming
        ),
        metadata={weights.METADATA_KEY: json.dumps(description)},
    )


def _write_predictions(
    folder: pathlib.Path, split: Split, logits: np.ndarray, mistakes: int
) -> None:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(-1)
    wrong = np.flatnonzero(predicted != split.labels)
    confidence = probabilities[wrong, predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")][:mistakes]
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities,
        labels=split.labels,
        indices=np.arange(len(split), dtype=np.int32),
        mistake_indices=worst.astype(np.int32),
        mistake_images=split.gather(worst),
        mistake_files=np.array([split.file(index) for index in worst], str),
        class_names=np.array(split.class_names),
        split=np.array("test"),
    )
    files.write(folder / "predictions.npz", content.getvalue())
