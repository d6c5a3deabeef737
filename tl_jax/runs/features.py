"""The features of a network, of every image of a data set as it is, saved as files for other programs.

`config.features` says at which boundary, how maps become vectors, and in which format. Deterministic: the same
config, weights and images give the same bytes on the same device.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import ml_collections

from tl_jax import console, reporting
from tl_jax.config import check
from tl_jax.features import saving
from tl_jax.runs import image_features, results
from tl_jax.runs.run_folder import RunFolder, environment_facts
from tl_jax.runs.setup import Setup
from tl_jax.runs.skeleton import facts_of, in_folder, introduce_inputs


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Writes the features of train, test and, where one is held out, validation into `workdir`.

    Args:
        config: of which model, weights and data count, and the section `features`.
        workdir: the run folder.
        stop_requested: whether to stop; asked while features are computed.

    Returns:
        What `result.json` holds: `files`, a row for each split.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop.
    """
    began = time.perf_counter()
    check(config)
    return in_folder(
        config,
        workdir,
        "features",
        prepare=lambda: image_features.setup_of(config),
        introduce=introduce_inputs,
        make=lambda setup, folder, _: _save(setup, folder, config.features, stop_requested, began),
        read=results.reader(_described),
    )


def _save(
    setup: Setup,
    folder: RunFolder,
    options: ml_collections.ConfigDict,
    stop_requested: Callable[[], bool],
    began: float,
) -> dict[str, Any]:
    saving.check_class_names(setup.splits["train"].class_names, options.format)
    found, setup = image_features.compute(setup, options.pool, stop_requested)
    places = saving.save(folder.path, found, options.format)
    rows = [
        {
            "split": name,
            "file": places[name],
            "examples": len(split),
            "features": split.features.shape[1],
        }
        for name, split in found.items()
    ]
    reporting.print_table(f"Features after {setup.boundary}", rows, level="normal")
    result = {
        "status": "finished",
        "boundary": setup.boundary,
        "pool": options.pool,
        "format": options.format,
        "files": rows,
        "reported": setup.splits.reported,
        "class_names": list(setup.splits["train"].class_names),
        "wall_seconds": time.perf_counter() - began,
        **{name: value for name, value in facts_of(setup, []).items() if name != "parameters"},
        **environment_facts(),
    }
    folder.finish(result)
    console.say(f"{folder.path}: {_described(result)}")
    return result


def _described(result: dict[str, Any]) -> str:
    first = result["files"][0]
    files = ", ".join(dict.fromkeys(row["file"] for row in result["files"]))
    return f"{first['features']:,} features of each image after {result['boundary']}: {files}"
