"""The recipe resnet18_full_sgd, corrected: shuffled batches of 32, evaluation mode for the test, validation held out.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet18_full_sgd_corrected.py \
        --workdir=runs/resnet18_full_sgd_corrected

Needs: as configs/recipes/resnet18_full_sgd.py, which says what stands in where there is no network.
Setting: the network, weights, data, epochs and optimizer of the recipe; shuffled batches of 32 and so 32 times the
rate (Goyal et al. 2017, arXiv:1706.02677); images normalised as the weights were trained; the test in evaluation
mode. A tenth of train chooses the best epoch; test is read once, at the end.
Result: docs/recipes.md.
"""

import pathlib

import tl_jax
from tl_jax.config import load


def get_config() -> tl_jax.Config:
    """Returns the recipe with what its header names changed."""
    config = load(pathlib.Path(__file__).with_name("resnet18_full_sgd.py"))
    config.data.batch_size = 32
    config.data.order = "shuffled"
    config.data.validation_fraction = 0.1
    config.preprocess.mean = ()
    config.preprocess.std = ()
    config.optim.learning_rate = 0.032
    config.train.eval_statistics = "running"
    return config
