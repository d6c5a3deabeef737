"""The protocols of the literature, with the numbers that their sources claim."""

from tl_jax.protocols.protocol import Claim, Facts, Protocol, Term, register
from tl_jax.protocols.terms import (
    epochs,
    field,
    labels_per_class,
    length,
    no_augmentation,
    normalisation_of_weights,
    pretrained,
    resolution,
    selected_by,
    trials,
    whole_test_split,
)

_CIFAR10 = "CIFAR-10"
_BYOL = "Grill et al. 2020, table 3"
_KUMAR = "Kumar et al. 2022, table 1"
_BIT_CODE = "README of google-research/big_transfer, median of five runs"
_HE = "He et al. 2015, table 6"

_RETRAINED = "With the chosen values the paper trains once more, on train and validation together."


def _phases() -> Term:
    """Returns the term that the head is trained first and all parameters afterwards."""
    expected = "the head alone, then all parameters"

    def found(facts: Facts) -> str:
        strategies = tuple(phase.freeze.strategy for phase in facts.phases)
        if strategies == ("backbone", "none"):
            return expected
        return ", then ".join(f"freeze.strategy={strategy}" for strategy in strategies)

    phases = (("freeze.strategy=backbone", "cache.boundary=auto"), ("freeze.strategy=none",))
    return Term("phases", expected, found, lambda text: text == expected, (f"phases={phases}",))


def _a_thousand_images() -> Term:
    """Returns the term that 800 images are trained on and 200 are held out, or all 1,000 are trained on."""
    return Term(
        "training images",
        "1,000, or 800 and 200 to choose by",
        lambda facts: f"{facts.train_examples:,} and {facts.validation_examples:,} to choose by",
        lambda text: text in ("1,000 and 0 to choose by", "800 and 200 to choose by"),
        ("data.train_split=train[:1000]", "data.validation_fraction=0.2"),
    )


register(
    Protocol(
        "kornblith2019_logistic",
        "Logistic regression on features of images as they are, by L-BFGS.",
        "Kornblith, Shlens and Le 2019 (arXiv:1805.08974), appendix A.4.",
        (
            pretrained(),
            resolution(224),
            normalisation_of_weights(),
            field("freeze.strategy", "backbone"),
            field("solver.name", "lbfgs"),
            field("solver.strengths", (), expected="the 45 of the paper"),
            selected_by("validation"),
            whole_test_split(),
        ),
        (
            Claim("supervised ResNet-50", _CIFAR10, 93.6, _BYOL),
            Claim("ResNet-50, linear probe", _CIFAR10, 91.8, _KUMAR),
        ),
        (_RETRAINED,),
    )
)
register(
    Protocol(
        "kornblith2019_finetune",
        "Full fine-tuning for 20,000 updates, with learning rate and weight decay from a grid.",
        "Kornblith, Shlens and Le 2019 (arXiv:1805.08974), appendix A.5.",
        (
            pretrained(),
            resolution(224),
            normalisation_of_weights(),
            field("freeze.strategy", "none"),
            length(20_000),
            field("data.batch_size", 256),
            field("optim.name", "sgd"),
            field("optim.momentum", 0.9),
            field("optim.nesterov", True),
            field("optim.schedule", "cosine"),
            field("augment.operations", ("random_resized_crop=0.08",)),
            field("augment.crop_padding", 0),
            field("augment.flip", True),
            trials(56),
            selected_by("validation"),
            whole_test_split(),
        ),
        (
            Claim("supervised ResNet-50", _CIFAR10, 97.5, _BYOL),
            Claim("ResNet-50 from random weights", _CIFAR10, 95.9, _BYOL),
        ),
        (
            _RETRAINED,
            "The momentum of BatchNorm depends on the size of the data set.",
            "The grid has 7 learning rates from 0.0001 to 0.1, and 7 ratios of weight decay to them and none.",
        ),
    )
)
register(
    Protocol(
        "lp_ft_table1",
        "A linear probe, then full fine-tuning of all parameters from its head.",
        "Kumar et al. 2022 (arXiv:2202.10054), section 4 and table 1; code AnanyaKumar/transfer_learning.",
        (
            pretrained(),
            resolution(224),
            normalisation_of_weights(),
            _phases(),
            epochs(20),
            field("data.batch_size", 64),
            field("optim.name", "sgd"),
            field("optim.momentum", 0.9),
            field("optim.weight_decay", 0.0),
            field("optim.schedule", "cosine"),
            no_augmentation(),
            trials(6),
            selected_by("validation"),
            whole_test_split(),
        ),
        (
            Claim("ResNet-50 of MoCo-v2, linear probe", _CIFAR10, 91.8, _KUMAR),
            Claim("ResNet-50 of MoCo-v2, fine-tuned", _CIFAR10, 97.3, _KUMAR),
            Claim("ResNet-50 of MoCo-v2, LP-FT", _CIFAR10, 97.5, _KUMAR),
        ),
        (
            "The head of the probe is logistic regression, whose strength is chosen on validation.",
            "The configs of the code for CIFAR-10 stop early by the test split.",
        ),
    )
)
register(
    Protocol(
        "bit_fewshot",
        "Full fine-tuning by BiT-HyperRule, with few labels per class.",
        "Kolesnikov et al. 2020 (arXiv:1912.11370), section 3.3 and figure 3.",
        (
            pretrained(),
            labels_per_class(1, 5, 10, 25, 100),
            field("freeze.strategy", "none"),
            field("train.fit_to_data", True),
            field("train.rule", "bit"),
            field("optim.name", "sgd"),
            field("optim.learning_rate", 0.003),
            field("optim.momentum", 0.9),
            field("optim.weight_decay", 0.0),
            resolution(128),
            field("preprocess.resize", 160),
            normalisation_of_weights(),
            trials(1),
            selected_by(""),
            whole_test_split(),
        ),
        (
            Claim("BiT-M R50x1, 1 label per class", _CIFAR10, 54.1, _BIT_CODE),
            Claim("BiT-M R50x1, 5 labels per class", _CIFAR10, 82.4, _BIT_CODE),
            Claim("BiT-M R50x1, all labels", _CIFAR10, 97.3, _BIT_CODE),
        ),
        (
            "Batches have 512 images, each several times where there are fewer.",
            "The runs of the README have batches of 128 and a learning rate of 0.001.",
            "Images of 96 x 96 pixels and more are seen at 384 x 384 pixels.",
            "BiT networks have GroupNorm and weight standardisation.",
        ),
    )
)
register(
    Protocol(
        "vtab_1k",
        "Full fine-tuning on 1,000 images with one of four combinations of hyper-parameters.",
        "Zhai et al. 2019 (arXiv:1910.04867), section 2.3, the lightweight sweep.",
        (
            pretrained(),
            _a_thousand_images(),
            resolution(224),
            normalisation_of_weights(),
            field("freeze.strategy", "none"),
            field("data.batch_size", 512),
            field("optim.name", "sgd"),
            field("optim.momentum", 0.9),
            field("optim.schedule", "step"),
            no_augmentation(),
            trials(4),
            whole_test_split(),
        ),
        (
            Claim(
                "BiT-M R152x4, mean of 19 tasks",
                "VTAB-1k",
                73.51,
                "README of google-research/big_transfer",
            ),
        ),
        (
            "The four are learning rates of 0.1 and 0.01 with 2,500 and 10,000 updates.",
            "The one that is best on 200 images is trained again on all 1,000.",
        ),
    )
)
register(
    Protocol(
        "tllib_cifar10",
        "Full fine-tuning, the backbone at a tenth of the learning rate, the best epoch chosen by test.",
        "Code thuml/Transfer-Learning-Library, examples/task_adaptation/image_classification/erm.py.",
        (
            pretrained(),
            resolution(224),
            normalisation_of_weights(),
            field("freeze.strategy", "none"),
            length(10_000),
            field("data.batch_size", 48),
            field("optim.name", "sgd"),
            field("optim.learning_rate", 0.01),
            field("optim.lr_multipliers", ("head/.*=1", ".*=0.1")),
            field("optim.momentum", 0.9),
            field("optim.nesterov", True),
            field("optim.weight_decay", 0.0005),
            field("optim.decay_bias_and_norm", True),
            field("optim.schedule", "step"),
            field("optim.step_steps", (6_000,)),
            field("augment.operations", ("random_resized_crop=0.08",)),
            field("augment.crop_padding", 0),
            field("augment.flip", True),
            trials(1),
            selected_by("test"),
            whole_test_split(),
        ),
        (Claim("ResNet-50", _CIFAR10, 96.6, "documentation of TLlib"),),
        ("What is chosen by the test split is too high as an estimate.",),
    )
)
register(
    Protocol(
        "he2015_cifar",
        "A CIFAR ResNet from random weights, for 64,000 updates.",
        "He, Zhang, Ren and Sun 2015 (arXiv:1512.03385), section 4.2.",
        (
            Term(
                "network",
                "a CIFAR ResNet of depth 20, 32, 44, 56 or 110",
                lambda facts: facts.config.model.name,
                lambda name: name in [f"resnet{depth}_cifar" for depth in (20, 32, 44, 56, 110)],
            ),
            Term(
                "initialisation",
                "random weights",
                lambda facts: facts.config.init.weights or "random weights",
                lambda found: found == "random weights",
                ("init.weights=",),
            ),
            resolution(32),
            field("data.batch_size", 128),
            length(64_000),
            field("optim.name", "sgd"),
            field("optim.learning_rate", 0.1),
            field("optim.momentum", 0.9),
            field("optim.weight_decay", 0.0001),
            field("optim.schedule", "step"),
            field("optim.step_steps", (32_000, 48_000)),
            field("augment.crop_padding", 4),
            field("augment.flip", True),
            field("augment.operations", (), expected="none"),
            trials(1),
            selected_by(""),
            whole_test_split(),
        ),
        (
            Claim("ResNet-20", _CIFAR10, 91.25, _HE),
            Claim("ResNet-32", _CIFAR10, 92.49, _HE),
            Claim("ResNet-44", _CIFAR10, 92.83, _HE),
            Claim("ResNet-56", _CIFAR10, 93.03, _HE),
        ),
        (
            "The mean of each pixel is subtracted; here, mean and standard deviation of each channel.",
            "The learning rate was chosen on 5,000 images held out of train.",
            "The paper's 110 layers warm up with a learning rate of 0.01.",
        ),
    )
)
