"""Classifies images with the network of a run: the most probable classes of each image.

    python -m experiments.predict runs/photos photo.jpg more_photos
    python -m experiments.predict runs/photos more_photos --top=1 --format=csv > predictions.csv

A folder stands for all images in it. Any format that Pillow reads. With --unreadable=skip, images that cannot be
read are listed on standard error and left out.
"""

import csv
import json
import sys

from absl import flags

from experiments import cli
from tl_jax import reporting
from tl_jax.data.skipping import UNREADABLE
from tl_jax.errors import InputError
from tl_jax.runs import finished

_TOP = flags.DEFINE_integer("top", 3, "Classes named for each image.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "csv", "json"], "What is printed.")
_UNREADABLE = flags.DEFINE_enum(
    "unreadable", "stop", UNREADABLE, "Images that cannot be read: an error, or left out."
)


def main(run: str = "", *paths: str) -> bool:
    """Predicts what the arguments name: a run, then images and folders of images.

    Returns:
        Whether what was printed is for people.
    """
    if not paths:
        raise InputError(
            "expected RUN IMAGE...: the folder of a run, then images or folders of images"
        )
    rows = finished.predict_files(finished.load_run(run), paths, _TOP.value, _UNREADABLE.value)
    if _FORMAT.value == "table":
        reporting.print_table(f"Predictions of {run}", rows, level="normal")
    elif _FORMAT.value == "json":
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return _FORMAT.value == "table"


if __name__ == "__main__":
    cli.run(main)
