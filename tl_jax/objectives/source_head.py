"""Objectives that keep and train the head of the weights, over the classes of the source, beside the new one.

B: images in the batch; F: pooled features; S: classes of the source; K: classes of the data.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tl_jax.errors import InputError
from tl_jax.objectives import losses
from tl_jax.objectives.contract import Metrics
from tl_jax.objectives.outputs import Outputs
from tl_jax.objectives.parameters import Start

SOURCE_HEAD = "source_head"


def head_logits(head: Mapping[str, Any], features: jax.Array) -> jax.Array:
    """Returns the logits [B, S] of a dense head on features [B, F].

    Args:
        head: {"kernel": [F, S], "bias": [S]}; without a bias, none is added.
        features: what the head takes.
    """
    logits = features @ head["kernel"]
    return logits + head["bias"][None, :] if "bias" in head else logits


def start_from_source(key: jax.Array, start: Start) -> Mapping[str, Any]:
    """Returns the parameters of the head of the weights, as they are; `key` is not used."""
    del key
    assert start.source_head is not None  # of objectives that need "source.head"
    return start.source_head


@dataclasses.dataclass(frozen=True)
class CoTuning:
    """Cross-entropy of the source's head with the classes of the source that the label of each image makes likely.

    -sum over s of p(y_s = s | y_t) log softmax(head(features))_s, the mean over the batch. The head is that of the
    weights; it and the network are trained. After a mixing of images p is the mean of that of their classes, in their
    shares. The probabilities are those of `Reference.relationship`.

    The head sees the features before the dropout of the network's own head.

    Attributes:
        boundary: whose features the head takes: the last one before the head of the network.

    Source: You, Kou, Long and Wang 2020, "Co-Tuning for Transfer Learning" (NeurIPS 2020), section 3; the mean over
    the batch as in https://github.com/thuml/CoTuning, `train.py`, whose default weight is 2.3 (`trade_off`). There
    the rate of the new head is ten times that of network and source head, and all are decayed alike.
    """

    boundary: str

    name = "co_tuning"
    needs = ("source.head", "source.relationship")

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The boundary."""
        return (self.boundary,)

    @property
    def params(self) -> dict[str, Any]:
        """The head of the source."""
        return {SOURCE_HEAD: start_from_source}

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the mean over the batch."""
        assert outputs.source is not None and outputs.source.relationship is not None
        logits = head_logits(outputs.own[SOURCE_HEAD], outputs.features[self.boundary])
        relationship = outputs.source.relationship
        if outputs.labels is not None:
            wanted = relationship[outputs.labels]
        else:
            wanted = jnp.matmul(outputs.targets, relationship, precision=jax.lax.Precision.HIGHEST)
        return losses.soft_cross_entropy(logits, wanted).mean(), {}


@dataclasses.dataclass(frozen=True)
class LearningWithoutForgetting:
    """Cross-entropy of the source's head, trained, with what the source network says of the same images.

    -sum over s of y'_s log q'_s, the mean over the batch: y' are the probabilities of the network that the run
    started from, q' those of the head of the weights on the features of the trained network, both raised to 1 / T and
    normalised again, which is softmax(logits / T).

    With that network as the teacher and that head as the student, T^2 times (this less the mean entropy of y') is
    `Distillation`: the gradients are those of distillation divided by T^2.

    The paper records y' once before training; here it is of the image as the update sees it, augmented. The source
    network runs with its own running statistics of BatchNorm, the trained one as training does.

    Attributes:
        boundary: whose features the head takes: the last one before the head of the network.
        temperature: T, above 0.

    Source: Li and Hoiem 2016, "Learning without Forgetting" (arXiv:1606.09282), equations 2 to 4, T = 2 and a weight
    of 1 (section 3). Its warm-up, in which the new head is trained alone first, is a phase of its own.
    """

    boundary: str
    temperature: float = 2.0

    name = "lwf"
    needs = ("source.head", "source.logits")

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"lwf_temperature is {self.temperature}, expected a number above 0")

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The boundary."""
        return (self.boundary,)

    @property
    def params(self) -> dict[str, Any]:
        """The head of the source."""
        return {SOURCE_HEAD: start_from_source}

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the mean over the batch."""
        assert outputs.source is not None and outputs.source.logits is not None
        logits = head_logits(outputs.own[SOURCE_HEAD], outputs.features[self.boundary])
        ours = losses.softened(logits, self.temperature)
        theirs = losses.softened(outputs.source.logits, self.temperature)
        return -jnp.sum(jnp.exp(theirs) * ours, axis=-1).mean(), {}
