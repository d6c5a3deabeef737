"""Photos of your own: the first command to run. Batches, length and warm-up are fitted to the data it finds.

Command:
    python -m experiments.finetune --config=configs/folder_finetune.py --config.data.name=folder:PATH \
        --workdir=runs/photos

Needs: PATH/{class}/*, or PATH/{train,test}/{class}/*, or such an archive; at least some 20 photos. Weights are
embedded: no network is needed.
Setting: the packaged ResNet-20 at 32 px, all of it fine-tuned. A fifth of the training photos is held out to choose
the best step; test is read once, at the end. The rule that fits the run to the data is in tl_jax/runs/fitted.py; a
length of your own (--config.train.epochs=30) stays. For a larger network and larger images:
    --config.model.name=resnet18 --config.init.weights=resnet18.tv_in1k --config.data.image_size=224
Result: in runs/photos/report.html.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning with random crops and flips, fitted to the data."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.name = "folder:photos"
    config.data.image_size = 32
    config.data.validation_fraction = 0.2
    config.data.batch_size = 128  # at most
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.01
    config.optim.weight_decay = 5e-4
    config.train.fit_to_data = True
    return config
