"""Transfer on a bare machine: the packaged ResNet-20 on handwritten digits, two labelled images per class.

Commands:
    make quickstart      all methods over all seeds, a table and a report (experiments.compare)
    python -m experiments.finetune --config=configs/quickstart.py --workdir=runs/digits      one full fine-tuning

Needs: nothing; weights and data are embedded.
Setting: half of the 1,297 training digits give the labelled and the validation images; the other half and the
500 test digits are test. Learning rate and random crops are those with the best mean validation top-1 of each
method, with other seeds and without the test digits (configs/quickstart_search.py). Seeds 0 to 7 were then run
once.
Result: runs/quickstart/ablation.json, recorded as results/quickstart.json; see the first table of README.md.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning; `compare` holds what the other methods change."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.name = "digits"
    # 648 digits to take labelled and validation images from; all other 1,149 are test.
    config.data.train_split = "train[:50%]"
    config.data.test_split = "test+train[50%:]"
    config.data.validation_fraction = 0.5
    config.data.examples_per_class = 2
    config.data.batch_size = 20
    config.augment.crop_padding = (
        2  # helps fine-tuning, not the others: see configs/quickstart_search.py
    )
    config.augment.flip = False
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 5e-4
    config.optim.warmup_steps = 10
    config.train.steps = 80
    config.train.eval_every_epochs = 0.0  # only at the end: no step is chosen by validation
    config.train.log_every_steps = 10

    config.compare.seeds = (0, 1, 2, 3, 4, 5, 6, 7)
    config.compare.baseline = "random_init"
    config.compare.methods.random_init = (
        "init.weights=",
        "optim.learning_rate=0.02",
        "augment.crop_padding=0",
    )
    config.compare.methods.linear_probe = (
        "freeze.strategy=backbone",
        "optim.learning_rate=0.1",
        "augment.crop_padding=0",
    )
    config.compare.methods.full_finetune = ()
    return config
