"""Runs a spec of configs/ablations, or goes on with it, and keeps what came of it with all that it depends on.

    python -m benchmarks.shipped_ablations --spec=cifar10_depth --workdir=DIR [--data_dir=DIR] \
        [--out=results/ablations/cifar10_depth.json]

The JSON is the ablation's own, with the seconds that its cells and their readings of test took, in all processes
that worked on it, and the revisions that trained them. With --out the figures lie beside it, as SVG.
"""

import argparse
import json
import pathlib
import shutil

from benchmarks import record
from tl_jax import ablation
from tl_jax.ablation import cells, outlook
from tl_jax.ablation.record import Record

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
FIGURES = ("differences", "labels", "depth")


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="name of a file of configs/ablations")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--data_dir", default="", help="of tfds")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    changes = (f"data.data_dir={args.data_dir}",) if args.data_dir else ()
    path = REPOSITORY / "configs" / "ablations" / f"{args.spec}.py"
    spec = ablation.load_spec(path, changes)
    content = ablation.ablate(spec, args.workdir, progress=True)
    folder = Record(args.workdir)
    revisions = {
        json.loads((folder.cell(cell) / "sealed.json").read_text()).get("git_revision")
        for cell in cells.expand(spec)
        if (folder.cell(cell) / "sealed.json").is_file()
    }
    content |= {
        "spec": args.spec,
        "seeds": list(spec.seeds),
        "seconds_of_cells": sum(folder.seconds(outlook.TRAINED).values()),
        "seconds_of_test": sum(folder.seconds(outlook.READ).values()),
        "revisions_of_cells": sorted(filter(None, revisions)),
    }
    recording.write(content)
    if args.out:
        drawn = args.out.with_suffix("")
        for name in FIGURES:
            figure = args.workdir / "figures" / f"{name}.svg"
            if figure.is_file():
                drawn.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(figure, drawn / figure.name)


if __name__ == "__main__":
    main()
