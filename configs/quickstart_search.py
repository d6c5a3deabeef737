"""The search that chose learning rates and augmentation of configs/quickstart.py, on digits held out of train.

Command:
    python -m experiments.compare --config=configs/quickstart_search.py --workdir=runs/quickstart_search

Needs: nothing; weights and data are embedded.
Result: results/quickstart_search.json; the best mean validation top-1 of each method is its setting in
configs/quickstart.py. The test digits of the quickstart are not read: what is called test here is a slice of
its training digits that no choice looks at. The seeds are others than those of the quickstart.
"""

import pathlib

import tl_jax

_RATES = ("0.01", "0.02", "0.05", "0.1", "0.2", "0.5")


def get_config() -> tl_jax.Config:
    """Returns the quickstart with every method at every learning rate of a grid, without and with random crops."""
    config = tl_jax.load_config(pathlib.Path(__file__).with_name("quickstart.py"))
    config.data.train_split = "train[:45%]"
    config.data.test_split = "train[45%:50%]"

    methods = {
        "random_init": ("init.weights=",),
        "linear_probe": ("freeze.strategy=backbone",),
        "full_finetune": (),
    }
    config.compare.seeds = (10, 11, 12, 13, 14)
    config.compare.methods = {}
    for method, fields in methods.items():
        for rate in _RATES:
            for suffix, padding in (("", 0), ("_crops", 2)):
                config.compare.methods[f"{method}_lr_{rate.replace('.', '_')}{suffix}"] = (
                    *fields,
                    f"optim.learning_rate={rate}",
                    f"augment.crop_padding={padding}",
                )
    config.compare.baseline = "random_init_lr_0_05"
    return config
