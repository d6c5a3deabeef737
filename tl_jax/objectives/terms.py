"""The objectives that a config names: cross-entropy, L2, L2-SP, DELTA, distillation.

B: images in the batch; K: classes; P: positions of a feature map; C: its channels.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.models import is_adapter
from tl_jax.models.network import HEAD
from tl_jax.objectives import losses
from tl_jax.objectives.contract import CROSS_ENTROPY, Metrics
from tl_jax.objectives.outputs import Outputs
from tl_jax.objectives.parameters import GROUP


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy with the labels, or with the targets of a mixing; see `losses.cross_entropy`.

    With class weights the loss of an example is weighted, and the mean is over the examples of the batch, as
    in Keras: it is the same however a batch is cut into microbatches or spread over devices. PyTorch's
    `CrossEntropyLoss(weight=)` divides by the sum of the weights of the labels in the batch instead (by the
    examples where targets are probabilities); with weights whose mean over the training examples is 1, as
    `class_weights.balanced` gives, the two agree on average.

    Attributes:
        label_smoothing: in [0, 1), or a traced scalar.
        class_weights: one for each class; () for all 1.
    """

    label_smoothing: float | jax.Array = 0.0
    class_weights: tuple[float, ...] = ()

    name = CROSS_ENTROPY

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the mean over the batch."""
        weights = jnp.array(self.class_weights, jnp.float32) if self.class_weights else None
        options = (self.label_smoothing, weights)
        if outputs.labels is None:
            loss = losses.soft_cross_entropy(outputs.logits, outputs.targets, *options)
        else:
            loss = losses.cross_entropy(outputs.logits, outputs.labels, *options)
        return loss.mean(), {}


@dataclasses.dataclass(frozen=True)
class L2:
    """The sum over chosen leaves of strength * sum of squares: a penalty in the loss, as Keras' recipes have it.

    Its gradient is 2 * strength * w. Unlike AdamW's decoupled weight decay it passes through the optimizer's
    statistics; with SGD it is a weight decay of 2 * strength.

    Attributes:
        strengths: {leaf name: number}; leaves that are not among the outputs' params (before the boundary of stored
            activations) do not move, and are left out.

    Source: `keras.regularizers.L2`.
    """

    strengths: Mapping[str, float]

    name = "l2"

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the weighted sum of squares."""
        squares = [
            self.strengths[name] * jnp.sum(jnp.square(leaf))
            for name, leaf in trees.flatten(outputs.params).items()
            if name in self.strengths
        ]
        return sum(squares, jnp.float32(0)), {}


@dataclasses.dataclass(frozen=True)
class L2SP:
    """Half the squared distance of the backbone's parameters to the source's: sum of (w - w0)^2 / 2.

    Every parameter outside the head counts, biases and BatchNorm included; see `pulls`. The head, which has
    no pretrained values to stay near, keeps its weight decay, which the others lose. So do adapters, and parameters
    of objectives (the head of the source that Co-Tuning trains): they are not of the backbone of the source.

    Source: Li, Grandvalet and Davoine 2018 (arXiv:1802.01483), equation 3, whose beta is the head's weight decay.
    """

    name = "l2_sp"
    needs = ("source.params",)

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the sum over all leaves but the head's."""
        assert outputs.source is not None and outputs.source.params is not None
        params = trees.flatten(outputs.params)
        # Under a cache the source has the leaves after its boundary; those before it do not move.
        distances = [
            jnp.sum(jnp.square(params[name] - leaf))
            for name, leaf in trees.flatten(outputs.source.params).items()
            if self.pulls(name)
        ]
        return 0.5 * sum(distances, jnp.float32(0)), {}

    @staticmethod
    def pulls(leaf: str) -> bool:
        """Returns whether a leaf of params, such as "stage1/conv1/kernel", is pulled to the source."""
        return leaf.split("/", 1)[0] not in (HEAD, GROUP) and not is_adapter(leaf)

    @classmethod
    def pulled(cls, params: trees.Tree, weight: float | jax.Array) -> trees.Tree:
        """Returns a tree of bools like params, True where a leaf is pulled; of a traced weight, traced ones."""
        leaves = trees.flatten(params)
        return trees.unflatten({leaf: weight > 0 if cls.pulls(leaf) else False for leaf in leaves})


@dataclasses.dataclass(frozen=True)
class Delta:
    """Distance of feature maps to those of the source network on the same images.

    Of each image and boundary: C / (2 P) * sum over channels of a_c * ||f_c - f0_c||^2, where f_c are the P
    values of a channel and a_c its attention, which sums to 1; then the sum over boundaries and the mean over
    images. With uniform attention, 1 / C, this is half the mean over positions of the squared distance.

    The paper learns the attention by removing one filter after the other from the source, see
    `training.filter_attention`; without `attention` it is uniform. Its code sums over the batch where its
    equations, and this, take the mean.

    Attributes:
        boundaries: whose features are compared.
        attention: {boundary: float32 [C]}; uniform where a boundary is not in it.

    Source: Li et al. 2019, DELTA (arXiv:1901.09229), equations 4 to 6; constants of its code,
    https://github.com/lixingjian/DELTA, `reg_att_fea_map`.
    """

    boundaries: tuple[str, ...]
    attention: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    name = "delta"
    needs = ("source.features",)

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the mean over the batch."""
        assert outputs.source is not None
        total = jnp.float32(0)
        for boundary in self.boundaries:
            ours, theirs = outputs.features[boundary], outputs.source.features[boundary]
            channels = ours.shape[-1]
            squares = jnp.square(ours - theirs).reshape(len(ours), -1, channels).mean(1)
            attention = self.attention.get(boundary)
            weighted = squares if attention is None else channels * attention[None, :] * squares
            total += 0.5 * weighted.sum(-1).mean()
        return total, {}


@dataclasses.dataclass(frozen=True)
class Distillation:
    """T^2 times the divergence of the network's softened probabilities from the teacher's.

    KL(softmax(teacher / T) || softmax(logits / T)), the mean over the batch. The factor keeps gradients of
    one size whatever the temperature.

    Attributes:
        temperature: T, above 0.

    Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), section 2.
    """

    temperature: float = 4.0

    name = "distillation"
    needs = ("teacher.logits",)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}, expected a number above 0")

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the mean over the batch."""
        assert outputs.teacher is not None and outputs.teacher.logits is not None
        ours = losses.softened(outputs.logits, self.temperature)
        theirs = losses.softened(outputs.teacher.logits, self.temperature)
        divergence = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
        return self.temperature**2 * divergence.mean(), {}
