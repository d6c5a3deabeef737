"""Recipe: a small CNN trained on animals, all layers but its head carried over to plants and fine-tuned.

Command:
    python -m experiments.finetune --config=configs/recipes/animals_to_plants.py --config.data.data_dir=DIR \
        --workdir=runs/animals_to_plants
    python -m experiments.compare --config=configs/recipes/animals_to_plants.py --config.data.data_dir=DIR \
        --workdir=runs/animals_to_plants_compared      # beside the same network from scratch, 3 seeds

Needs: in DIR two sets of photos in class folders, animals64 (20 classes) and flowers128 (5 classes), each a folder or
an archive. Other sets: --config.data.name=folder:PLANTS and in init.source "data.name=folder:ANIMALS".
Setting: the animals' network is trained first, in WORKDIR/source (10 epochs, validated on animals held out of train,
tested on the animals' own test images); then the plants' network starts from it with a new head. A fifth of the
plants is the test split, a tenth of the rest is held out to choose the best epoch; test is read once, at the end.
The published recipe has flaws that this one has not: it validates the animals' network on plants, which have other
classes; it evaluates on the images that it trained on; it batches twice, so that the network sees batches of batches.
Result: docs/recipes.md: accuracy, macro precision, recall and F1 with 3 seeds, from how many labels on it pays, and
which layers carry over.
"""

import tl_jax

SOURCE = (
    "data.name=folder:animals64",
    "data.validation_fraction=0.1",
    "data.batch_size=32",
    "train.epochs=10",
    "train.eval_every_epochs=1",
)


def get_config() -> tl_jax.Config:
    """Returns the transfer; `compare` holds the same network from scratch."""
    config = tl_jax.default_config()
    config.model.name = "small_cnn"
    config.init.source = SOURCE
    config.data.name = "folder:flowers128"
    config.data.image_size = 64
    config.data.validation_fraction = 0.1
    config.data.batch_size = 32
    config.augment.crop_padding = 0
    config.optim.name = "adamw"
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.epochs = 20.0

    config.compare.seeds = (0, 1, 2)
    config.compare.baseline = "scratch"
    config.compare.methods.scratch = ("init.source=",)
    config.compare.methods.transfer = ()
    return config
