"""The published recipes beside their corrected siblings, and animals to plants; over seeds, with macro metrics.

    python -m benchmarks.recipes --data_dir=DIR --only=cifar10 --out=results/recipes.json
    python -m benchmarks.recipes --data_dir=DIR --only=animals_to_plants --out=results/animals_to_plants.json

DIR holds CIFAR-10 as a TFDS directory, animals64 and flowers128. On a CPU the CIFAR-10 recipes run from the packaged
ResNet-20 on a tenth of train, as `REDUCED` says; --full runs them as they are. Every cell is an ordinary run; cells
that are finished in --workdir are not run again.
"""

import argparse
import contextlib
import pathlib
import tempfile
from typing import Any

import ml_collections

from benchmarks import record
from tl_jax import ablation, console
from tl_jax.ablation import cells
from tl_jax.ablation.record import Record
from tl_jax.config import assigned, load
from tl_jax.runs import training

RECIPES = record.REPOSITORY / "configs" / "recipes"
SEEDS = (0, 1, 2)
_PACKAGED = (
    "model.name=resnet20_cifar",
    "model.classifier=",
    "model.stem=",
    "init.weights=resnet20_cifar.tin32",
    "init.reset=",
    "data.image_size=32",
    "preprocess.resize=32",
    "data.train_split=train[:10%]",
    "report.html=false",
    "report.tensorboard=false",
)
# What stands in on a CPU, by recipe: the packaged network, a tenth of train, fewer epochs.
REDUCED: dict[str, tuple[str, ...]] = {
    "resnet50_full_sgd": _PACKAGED,
    "vgg16_frozen_gap": (*_PACKAGED, "init.channel_order="),
    "resnet18_full_sgd": (*_PACKAGED, "train.epochs=2"),
    # ImageNet's mean and std are what the recipe's weights expect; the packaged ones expect theirs.
    "resnet50_frozen_head": (*_PACKAGED, "preprocess.mean=", "preprocess.std="),
}
# As published, red is where the weights expect blue.
_SWAPPED = ("init.channel_order=bgr",)
VARIANTS = {"as published": "{}.py", "corrected": "{}_corrected.py"}
# Labels per class; 0: all. Updates of 16 images each.
SHOTS = {5: 300, 10: 300, 20: 300, 50: 600, 100: 600, 0: 1800}
_OF_SHOTS = (
    "data.batch_size=16",
    "train.epochs=0",
    "train.eval_every_epochs=0",
    "report.html=false",
    "report.tensorboard=false",
)
_RESNET = (
    "model.name=resnet20_cifar",
    "data.image_size=32",
    "init.source=",
    "optim.name=sgd",
    "optim.learning_rate=0.01",
    "optim.weight_decay=0.0005",
)
# Methods of animals to plants: the assignments of each, and at which labels per class it is run.
METHODS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "scratch": (("init.source=",), tuple(SHOTS)),
    "transfer": ((), tuple(SHOTS)),
    "transfer_stage1": (("init.reset=('stage2/.*','hidden/.*')",), (20, 100, 0)),
    "transfer_convolutions": (("init.reset=('hidden/.*',)",), (20, 100, 0)),
    "resnet20_scratch": (_RESNET, tuple(SHOTS)),
    "resnet20_packaged": ((*_RESNET, "init.weights=resnet20_cifar.tin32"), tuple(SHOTS)),
}
_METRICS = ("top1_accuracy", "macro_precision", "macro_recall", "macro_f1")


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--only", choices=("cifar10", "animals_to_plants"), required=True)
    parser.add_argument("--full", action="store_true", help="the recipes as they are")
    parser.add_argument("--workdir", type=pathlib.Path, help="of all runs; none: a temporary one")
    parser.add_argument("--set", nargs="*", default=[], help="FIELD=VALUE of every config")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    with contextlib.ExitStack() as closing, console.verbosity("silent"):
        workdir = args.workdir or pathlib.Path(
            closing.enter_context(tempfile.TemporaryDirectory(prefix="tl_jax-recipes-"))
        )
        measured = _cifar10(args, workdir) if args.only == "cifar10" else _plants(args, workdir)
    recording.write(measured)


def _cifar10(args: argparse.Namespace, workdir: pathlib.Path) -> dict[str, Any]:
    rows = []
    for recipe, reduced in REDUCED.items():
        for variant, name in VARIANTS.items():
            config = load(RECIPES / name.format(recipe))
            flaw = _SWAPPED if recipe.startswith("vgg") and variant == "as published" else ()
            config = assigned(config, () if args.full else (*reduced, *flaw))
            for seed in SEEDS:
                run = assigned(
                    config,
                    (
                        f"seed={seed}",
                        f"data.seed={seed}",
                        f"data.data_dir={args.data_dir}",
                        *args.set,
                    ),
                )
                folder = workdir / recipe / variant.replace(" ", "_") / f"seed{seed}"
                result = training.run(run, folder)
                row = {"recipe": recipe, "variant": variant, "seed": seed}
                rows.append(row | _measured(run, result))
    return {"full": args.full, "reduced": {} if args.full else REDUCED, "rows": rows}


def _plants(args: argparse.Namespace, workdir: pathlib.Path) -> dict[str, Any]:
    config = load(RECIPES / "animals_to_plants.py")
    config = assigned(config, (f"data.data_dir={args.data_dir}", *_OF_SHOTS, *args.set))
    config.compare.methods = {
        f"{method}_{shots}": (
            *assignments,
            f"data.examples_per_class={shots}",
            f"train.steps={SHOTS[shots]}",
            f"train.eval_every_steps={SHOTS[shots] // 10}",
        )
        for method, (assignments, at) in METHODS.items()
        for shots in at
    }
    config.compare.baseline = "scratch_0"
    spec = ablation.spec_of(config)
    ablation.ablate(spec, workdir, progress=True)
    rows = []
    for cell in cells.expand(spec):
        method, _, shots = cell.variant.rpartition("_")
        row = {"method": method, "examples_per_class": int(shots), "seed": cell.seed}
        result = training.run(cell.config, Record(workdir).cell(cell))
        rows.append(row | _measured(cell.config, result))
    return {"shots": SHOTS, "rows": rows}


def _measured(config: ml_collections.ConfigDict, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the numbers of a finished run that the tables show."""
    test = result["splits"]["test"]
    return {
        **{name: test[name] for name in _METRICS},
        "test_examples": test["examples"],
        "train_examples": result["train_examples"],
        "steps": result["steps"],
        "selected_step": result["selected_step"],
        "wall_seconds": result["wall_seconds"],
        "model": config.model.name,
        "weights": config.init.weights,
    }


if __name__ == "__main__":
    main()
