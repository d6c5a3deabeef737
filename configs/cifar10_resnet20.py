"""The CIFAR-10 recipe of He et al. (2015, section 4.2) for ResNet-20, from scratch.

Commands:
    python -m experiments.finetune --config=configs/cifar10_resnet20.py --workdir=runs/cifar10_resnet20
    python -m experiments.evaluate --config=configs/cifar10_resnet20.py --config.init.weights=resnet20.th \
        --config.init.head=keep --workdir=runs/evaluated      a ported CIFAR checkpoint

Needs: CIFAR-10; 182 epochs are an accelerator's work.
Result: not yet measured here. Source: 8.75% test error (the paper's Table 6, 64,000 iterations).
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the paper's 64,000 updates: 0.1, divided by ten after 32,000 and 48,000."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.data.validation_fraction = 0.1  # the paper's 45,000 / 5,000 split
    config.data.batch_size = 128
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.weight_decay = 1e-4
    config.optim.decay_bias_and_norm = True  # as the paper's training did
    config.optim.schedule = "step"
    config.optim.step_steps = (32_000, 48_000)
    config.train.steps = 64_000
    config.train.eval_every_epochs = 5.0
    return config
