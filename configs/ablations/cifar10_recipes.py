"""Recipes that tutorials teach, as published and corrected, with the packaged ResNet-20 on a tenth of CIFAR-10.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_recipes.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_recipes

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: configs/recipes/*.py, at 32 x 32 pixels; resnet18_full_sgd for two epochs, all else as there; 5 seeds. Each
recipe is compared with its corrected sibling, which trains on a tenth fewer images; these are held out.
Result: docs/findings.md.
"""

import pathlib

from tl_jax.ablation import Spec
from tl_jax.config import assigned, load

RECIPES = pathlib.Path(__file__).parent.parent / "recipes"
PACKAGED = (
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
# Of each recipe what else stands in, and of that as published alone: red where the weights expect blue.
STANDING_IN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "resnet50_full_sgd": ((), ()),
    "vgg16_frozen_gap": (("init.channel_order=",), ("init.channel_order=bgr",)),
    "resnet18_full_sgd": (("train.epochs=2",), ()),
    # ImageNet's mean and std are what the recipe's weights expect; the packaged ones expect theirs.
    "resnet50_frozen_head": (("preprocess.mean=", "preprocess.std="), ()),
}


def get_spec() -> Spec:
    """Returns the recipes, each beside its corrected sibling."""
    variants, pairs = {}, {}
    for recipe, (changes, flaws) in STANDING_IN.items():
        corrected = f"{recipe}_corrected"
        for name, assignments in ((corrected, changes), (recipe, (*changes, *flaws))):
            variants[name] = assigned(load(RECIPES / f"{name}.py"), (*PACKAGED, *assignments))
        pairs[recipe] = corrected
    return Spec(
        next(iter(variants.values())),
        variants=variants,
        seeds=(0, 1, 2, 3, 4),
        pairs=pairs,
        further_metrics=("macro_precision", "macro_recall", "macro_f1"),
    )
