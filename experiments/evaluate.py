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

import pathlib

from absl import flags

from experiments import cli
from tl_jax.runs import evaluate

cli.define_run_flags()
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run folder, instead of --config.")
_WHICH = flags.DEFINE_enum(
    "which",
    None,
    ["best", "latest"],
    "Which of its checkpoints; by default the one that the run reports on.",
)


def main() -> None:
    """Evaluates what the flags name."""
    if _CHECKPOINT.value:
        run = pathlib.Path(_CHECKPOINT.value).expanduser()
        evaluate.evaluate_run(run, _WHICH.value, cli.workdir(), cli.changes())
    else:
        evaluate.evaluate_weights(cli.config(), cli.workdir())


if __name__ == "__main__":
    cli.run(main)
