"""Linear probe, full fine-tuning and LP-FT (probe, then fine-tune) of the packaged ResNet-20, equal updates.

Command:
    python -m experiments.compare --config=configs/cifar10_lpft.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_lpft

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: 200 images per class of train are used (2,000 in all), chosen by the seed; 5,000 others are held out of
train to choose a method by. Every method makes 240 updates of 64 images; LP-FT makes 60 of the head on stored
features, then 180 of all parameters (better than 120 and 120 on the validation images of seed 10). All 10,000 test
images are counted.
Result: README.md, section Results; from results/cifar10_lpft.json.
Source: Kumar et al. 2022 (arXiv:2202.10054), section 3.4.
"""

import tl_jax
from tl_jax.config import lp_ft


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning; `compare` holds what the other methods change."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.examples_per_class = 200
    config.data.validation_fraction = 0.1
    config.data.batch_size = 64
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.05
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.warmup_steps = 30
    config.train.steps = 240
    config.train.eval_every_epochs = 0.0  # only at the end: no step is chosen by validation

    config.compare.seeds = (0, 1, 2)
    config.compare.baseline = "full_finetune"
    config.compare.methods.full_finetune = ()
    head = ("optim.learning_rate=0.1", "optim.warmup_steps=0")
    probe, finetune = lp_ft(("train.steps=60", *head), ("train.steps=180",))
    config.compare.methods.linear_probe = lp_ft(head)[0]  # its first phase, for all 240 updates
    config.compare.methods.lp_ft = (f"phases={(probe, finetune)}",)
    return config
