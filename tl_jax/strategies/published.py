"""The strategies of the literature, with hyper-parameters as published.

Where a paper tunes a number, ours is the default of its code, or the middle of its grid; a spec tunes others. The
config gives learning rate, batch size, length and augmentation, so that strategies are compared at equal updates.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from tl_jax.config import gradual_unfreezing as unfreezing_phases
from tl_jax.config import lp_ft as lp_ft_phases
from tl_jax.errors import InputError
from tl_jax.runs.network import trainable_groups
from tl_jax.strategies.lengths import parts_of_run
from tl_jax.strategies.registry import Assign, Strategy, register

Assignments = tuple[str, ...]

# Of the learning rate, from member to member of a soup.
_SOUP_FACTORS = (0.3, 0.6, 1.0, 1.7, 3.0)


def _strategy(argument: str = "") -> Callable[[Assign], Assign]:
    """Registers a function as the strategy of its name, which takes an argument after a colon where one is named."""

    def add(function: Assign) -> Assign:
        register(Strategy(function.__name__, function, argument))
        return function

    return add


@_strategy()
def random_init(config: ConfigDict) -> Assignments:
    """Trains the whole network from random weights."""
    return ("init.weights=",)


@_strategy()
def full_finetune(config: ConfigDict) -> Assignments:
    """Trains all parameters from the pretrained weights."""
    return ("freeze.strategy=none",)


@_strategy()
def linear_probe(config: ConfigDict) -> Assignments:
    """Trains the head by updates, the backbone frozen."""
    return ("freeze.strategy=backbone",)


@_strategy()
def linear_probe_lbfgs(config: ConfigDict) -> Assignments:
    """Solves the head as logistic regression by L-BFGS, with the L2 strength that is best on validation.

    Source: Kornblith, Shlens and Le 2019 (arXiv:1805.08974), appendix A.
    """
    return ("freeze.strategy=backbone", "solver.name=lbfgs")


@_strategy()
def ridge(config: ConfigDict) -> Assignments:
    """Solves the head as ridge regression in closed form, with the strength that is best on validation.

    Source: Bertinetto, Henriques, Torr and Vedaldi 2019 (arXiv:1805.08136), section 3.
    """
    return ("freeze.strategy=backbone", "solver.name=ridge")


@_strategy()
def nearest_class_mean(config: ConfigDict) -> Assignments:
    """Chooses the class whose mean feature vector is nearest.

    Source: Mensink, Verbeek, Perronnin and Csurka 2013 (TPAMI 35(11)); Snell, Swersky and Zemel 2017
    (arXiv:1703.05175).
    """
    return ("freeze.strategy=backbone", "solver.name=nearest_mean")


@_strategy()
def lp_ft(config: ConfigDict) -> Assignments:
    """Trains the head on frozen features for half of the run, then all parameters.

    Source: Kumar, Raghunathan, Jones, Ma and Liang 2022 (arXiv:2202.10054), section 3.4.
    """
    probe, finetune = parts_of_run(config, (0.5, 0.5))
    return (f"phases={lp_ft_phases(probe, finetune)}",)


@_strategy()
def gradual_unfreezing(config: ConfigDict) -> Assignments:
    """Trains the head first, then one group more in each phase, from the last to the first.

    The phases are of equal length; in the paper, an epoch each, and the last one until convergence.

    Source: Howard and Ruder 2018 (arXiv:1801.06146), section 3.3.
    """
    groups = _backbone(config)
    lengths = parts_of_run(config, (1 / (len(groups) + 1),) * (len(groups) + 1))
    phases = unfreezing_phases(groups)
    return (
        f"phases={tuple((*phase, *length) for phase, length in zip(phases, lengths, strict=True))}",
    )


@_strategy()
def discriminative_rates(config: ConfigDict) -> Assignments:
    """Divides the learning rate by 2.6 from each group to the one below.

    Source: Howard and Ruder 2018 (arXiv:1801.06146), section 3.2.
    """
    return (f"optim.layerwise_decay={1 / 2.6}",)


@_strategy("K")
def top(config: ConfigDict, count: str) -> Assignments:
    """Trains the head and the K groups before it."""
    return (f"freeze.strategy=top:{count}",)


@_strategy("GROUP")
def surgical(config: ConfigDict, group: str) -> Assignments:
    """Trains one group and the head.

    The paper keeps the classes and trains the group alone; with new classes, the head has to be trained too.

    Source: Lee, Chen, Tajwar, Kumar, Yao, Liang and Finn 2023 (arXiv:2210.11466), section 3.
    """
    return (f"freeze.strategy=only:{group}",)


@_strategy()
def auto_rgn(config: ConfigDict) -> Assignments:
    """Multiplies the learning rate of each parameter tensor by its relative gradient norm, anew in every epoch.

    Source: Lee et al. 2023 (arXiv:2210.11466), section 5.
    """
    return ("optim.auto_rgn=True",)


@_strategy()
def batch_norm_only(config: ConfigDict) -> Assignments:
    """Trains scale and bias of BatchNorm and the head.

    Source: Frankle, Schwab and Morcos 2020 (arXiv:2003.00152).
    """
    return ("freeze.strategy=all_but_bn",)


@_strategy()
def bias_only(config: ConfigDict) -> Assignments:
    """Trains the biases and the head.

    Source: Cai, Gan, Zhu and Han 2020 (arXiv:2007.11622), section 4; Ben Zaken, Ravfogel and Goldberg 2021
    (arXiv:2106.10199).
    """
    return ("freeze.strategy=all_but_bias",)


@_strategy()
def linear_probe_batch_statistics(config: ConfigDict) -> Assignments:
    """Trains the head, the frozen BatchNorm normalised by the statistics of each batch, which are recorded."""
    return ("freeze.strategy=backbone", "freeze.batch_norm=update")


@_strategy()
def adabn(config: ConfigDict) -> Assignments:
    """Estimates the statistics of BatchNorm on the training images, then trains the head.

    Source: Li, Wang, Shi, Liu and Hou 2016 (arXiv:1603.04779), section 3.2.
    """
    return ("init.batch_stats=target", "freeze.strategy=backbone")


@_strategy()
def residual_adapters(config: ConfigDict) -> Assignments:
    """Trains 1x1 convolutions beside the frozen ones, BatchNorm and the head.

    Source: Rebuffi, Bilen and Vedaldi 2018 (arXiv:1803.10082), section 3.
    """
    return ("model.adapters=residual", "freeze.strategy=all_but_adapters")


@_strategy()
def low_rank_adapters(config: ConfigDict) -> Assignments:
    """Trains changes of rank 4 to the frozen convolutions, BatchNorm and the head.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1, of linear layers; rank 4 as in its tables.
    """
    return (
        "model.adapters=low_rank",
        "model.adapter_rank=4",
        "freeze.strategy=all_but_adapters",
    )


@_strategy()
def l2_sp(config: ConfigDict) -> Assignments:
    """Pulls the backbone to its start by the squared distance of the parameters.

    Source: Li, Grandvalet and Davoine 2018 (arXiv:1802.01483), section 3.
    """
    return ("objective.l2_sp=0.01",)


@_strategy()
def delta(config: ConfigDict) -> Assignments:
    """Pulls the feature maps to those of the network at its start, filters weighted by their use for the images.

    Source: Li et al. 2019 (arXiv:1901.09229); its code takes weights from 0.001 to 0.1.
    """
    return ("objective.delta=0.01", "objective.delta_attention=True")


@_strategy()
def bss(config: ConfigDict) -> Assignments:
    """Penalises the smallest singular value of the features of each batch.

    Source: Chen, Wang, Fu, Long and Wang 2019 (NeurIPS, "Catastrophic forgetting meets negative transfer").
    """
    return ("objective.bss=0.001",)


@_strategy()
def stoch_norm(config: ConfigDict) -> Assignments:
    """Normalises each channel by running statistics or those of the batch, at random.

    Source: Kou, You, Long and Wang 2020 (NeurIPS, "Stochastic Normalization").
    """
    return ("model.stoch_norm=0.5",)


@_strategy()
def co_tuning(config: ConfigDict) -> Assignments:
    """Trains the head of the source as well, on the classes of the source that go with each label.

    Source: You, Kou, Long and Wang 2020 (NeurIPS, "Co-Tuning for Transfer Learning"), section 3; weight 2.3.
    """
    return ("objective.co_tuning=2.3",)


@_strategy()
def lwf(config: ConfigDict) -> Assignments:
    """Keeps what the head of the source says of each image near what it said at the start.

    The paper trains the new head alone first.

    Source: Li and Hoiem 2016 (arXiv:1606.09282), section 3; temperature 2, weight 1.
    """
    return ("objective.lwf=1.0",)


@_strategy()
def self_distillation(config: ConfigDict) -> Assignments:
    """Learns from the labels and from the probabilities of a run that was fine-tuned on the same images before.

    Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), section 2; Furlanello et al. 2018 (arXiv:1805.04770).
    """
    return ("objective.distillation=1.0", "objective.teacher_source=('freeze.strategy=none',)")


@_strategy()
def ema(config: ConfigDict) -> Assignments:
    """Reports an exponential moving average of the weights.

    Source: Tarvainen and Valpola 2017 (arXiv:1703.01780), whose decay is 0.99 at first and 0.999 in long runs.
    """
    return ("average.name=ema", "average.decay=0.99", "average.choose=averaged")


@_strategy()
def swa(config: ConfigDict) -> Assignments:
    """Reports the mean of the weights over the last quarter of the run.

    Source: Izmailov et al. 2018 (arXiv:1803.05407), section 3.2.
    """
    return ("average.name=swa", "average.start=0.75", "average.choose=averaged")


@_strategy()
def wise_ft(config: ConfigDict) -> Assignments:
    """Reports the mean of the weights after a linear probe and after the fine-tuning that follows it.

    Source: Wortsman et al. 2022 (arXiv:2109.01903), section 3, alpha 0.5; its start is a zero-shot network.
    """
    probe, finetune = parts_of_run(config, (0.5, 0.5))
    average = ("average.name=wise_ft", "average.alpha=0.5", "average.choose=averaged")
    return (f"phases={lp_ft_phases(probe, (*finetune, *average))}",)


@_strategy()
def uniform_soup(config: ConfigDict) -> Assignments:
    """Averages the weights of five runs that begin with the same linear probe and differ in the learning rate.

    Source: Wortsman et al. 2022 (arXiv:2203.05482), section 2; its members differ in augmentation, too.
    """
    return ("soup.name=uniform", _members(config))


@_strategy()
def greedy_soup(config: ConfigDict) -> Assignments:
    """Averages those of the five runs of `uniform_soup` that help on validation, added from the best to the worst.

    Source: Wortsman et al. 2022 (arXiv:2203.05482), algorithm 1.
    """
    return ("soup.name=greedy", _members(config))


@_strategy()
def sam(config: ConfigDict) -> Assignments:
    """Takes the gradient where the loss is highest nearby (sharpness-aware minimisation).

    Source: Foret, Kleiner, Mobahi and Neyshabur 2021 (arXiv:2010.01412), equations 2 and 3; rho 0.05.
    """
    return ("optim.sam_rho=0.05",)


@_strategy()
def mixup(config: ConfigDict) -> Assignments:
    """Trains on weighted means of two images and their labels.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz 2018 (arXiv:1710.09412), alpha 1 as for CIFAR-10.
    """
    return ("augment.mixing=mixup=1.0",)


@_strategy()
def cutmix(config: ConfigDict) -> Assignments:
    """Pastes a rectangle of another image into each, labels mixed by its area.

    Source: Yun et al. 2019 (arXiv:1905.04899), alpha 1.
    """
    return ("augment.mixing=cutmix=1.0",)


@_strategy()
def bit_hyperrule(config: ConfigDict) -> Assignments:
    """Chooses length, schedule, batch size and mixup by the number of training images.

    What the config gives of these stays, but for the length. Its resolution is not chosen; see `runs.fitted`.

    Source: Kolesnikov et al. 2020 (arXiv:1912.11370), section 3.3.
    """
    return ("train.fit_to_data=True", "train.rule=bit", "train.steps=0", "train.epochs=0.0")


def _members(config: ConfigDict) -> str:
    """Returns the members of a soup: fine-tuning at several learning rates after one linear probe."""
    probe, finetune = parts_of_run(config, (0.5, 0.5))
    rates = (factor * config.optim.learning_rate for factor in _SOUP_FACTORS)
    phases = (lp_ft_phases(probe, (*finetune, f"optim.learning_rate={rate:g}")) for rate in rates)
    return f"soup.members={tuple((f'phases={one}',) for one in phases)}"


def _backbone(config: ConfigDict) -> tuple[str, ...]:
    """Returns the groups of the network before its head."""
    groups = trainable_groups(config)
    if len(groups) < 2:
        raise InputError(f"model.name={config.model.name}: the network has no groups but its head")
    return groups[:-1]
