"""Nothing against nothing: the same variant under two names over ten seeds, on handwritten digits.

Command:
    python -m experiments.ablate --spec=configs/ablations/null.py --workdir=runs/null

Needs: nothing; weights and data are embedded.
Result: in runs/null/ablation.md. Runs of one seed are the same to the bit, so that every difference is 0: whatever
else is seen here is a defect.
"""

import tl_jax
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns a linear probe, twice."""
    base = tl_jax.default_config()
    base.model.name = "resnet20_cifar"
    base.init.weights = "resnet20_cifar.tin32"
    base.data.name = "digits"
    base.data.examples_per_class = 10
    base.data.validation_fraction = 0.2
    base.data.batch_size = 50
    base.augment.crop_padding = 0
    base.augment.flip = False
    base.freeze.strategy = "backbone"
    base.cache.boundary = "auto"
    base.optim.learning_rate = 0.1
    base.train.steps = 40
    base.train.eval_every_epochs = 0.0
    base.report.html = False
    base.report.tensorboard = False
    return Spec(base, {"one": (), "other": ()}, seeds=tuple(range(10)))
