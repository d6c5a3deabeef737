"""Looks at the data of a config before anything is trained on it."""

import pathlib

import ml_collections

from tl_jax import console, data, reporting
from tl_jax.runs import run_folder
from tl_jax.runs.splits import make_undecoded_splits


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | None = None,
    source: data.Source | None = None,
) -> data.Inspection:
    """Returns what is in the data of a config: leakage between splits, duplicates, sizes, broken images.

    Prints a summary, leakage first. Images that cannot be read stop nothing here.

    Args:
        config: whose section `data` counts: the splits are those that a run of it would have.
        workdir: where `inspection.html` and `inspection.json` are written; None: nowhere.
        source: of the data; None: what `data.name` says.

    Raises:
        InputError: if the data cannot be found, or `workdir` holds files of something else.
    """
    if workdir is not None:
        # matplotlib comes with it: not before it is needed.
        from tl_jax.reporting.inspection import FACTS

        run_folder.check_replaceable(workdir, FACTS)
    splits = make_undecoded_splits(config, source)
    found = data.inspect(splits, config.data.name if source is None else source.name)
    for line in found.summary():
        console.say(line)
    if workdir is not None:
        console.say(f"{reporting.write_inspection(workdir, found)}: classes, examples and pairs")
    return found
