"""Which boundaries are exact, and what is said of those that are not."""

import re

import jax
import pytest
from flax import linen as nn

from tl_jax import features, freezing, models
from tl_jax.errors import InputError

MODEL = models.resnet.ResNet((1, 1, 1), "basic", 4, stem_kind="cifar", width=4, shortcut="pad")


class Dropping(models.ResNet):
    """Drops activations at random in every stage."""

    def _stage(self, index, conv, norm):
        stage, drop = super()._stage(index, conv, norm), nn.Dropout(0.5)
        return lambda x, train: drop(stage(x, train), deterministic=not train)


DROPPING = Dropping((1, 1, 1), "basic", 4, stem_kind="cifar", width=4, shortcut="pad")
VGG = models.VGG((1, 1), 4, width=4, hidden_width=8)


def choose(wanted="auto", strategy="backbone", patterns=(), policy="frozen", model=MODEL):
    params = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))["params"]
    mask = freezing.frozen_mask(params, strategy, patterns, boundaries=model.boundaries)
    return features.choose_boundary(
        model,
        wanted,
        frozen_mask=mask,
        frozen_norms=freezing.frozen_norms(params, mask),
        norm_policy=policy,
        image_size=16,
    )


@pytest.mark.parametrize(
    ("wanted", "strategy", "patterns", "expected"),
    [
        ("auto", "backbone", (), "pool"),
        ("auto", "up_to:stage2", (), "stage2"),
        ("auto", "none", ("stem/.*",), "stem"),
        ("stage1", "backbone", (), "stage1"),
        ("pool", "backbone", (), "pool"),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [{}, {"remat": "dots"}, {"remat": "blocks"}, {"batch_norm_rows": 8}],
    ids=["", "dots", "blocks", "groups"],
)
def test_the_last_boundary_before_anything_trained(wanted, strategy, patterns, expected, fields):
    model = MODEL.clone(**fields)
    assert choose(wanted, strategy, patterns, model=model) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [(DROPPING, "stem"), (VGG, "pool"), (VGG.clone(dropout=0.0), "hidden")],
    ids=["in the stages", "in the hidden layers", "none"],
)
def test_the_last_boundary_before_anything_dropped(model, expected):
    assert choose(model=model) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "none"},
            "cache.boundary=auto would not be exact: stem/bn/bias and 2 more before it are trained; "
            "no boundary would be exact",
        ),
        (
            {"wanted": "stage3", "strategy": "up_to:stage1"},
            "cache.boundary=stage3 would not be exact: stage2/block0/bn1/bias and 5 more before it are "
            "trained; nearest that is: stage1",
        ),
        (
            {"policy": "update"},
            "cache.boundary=auto would not be exact: freeze.batch_norm=update makes stem/bn before it "
            "depend on the other images of a batch (expected freeze.batch_norm=frozen); "
            "no boundary would be exact",
        ),
        (
            {"policy": "batch_stats_no_update"},
            "freeze.batch_norm=batch_stats_no_update makes stem/bn before it depend",
        ),
        (
            {"wanted": "pool", "model": DROPPING},
            "the part up to pool does in training what it does not do in evaluation, such as dropout; "
            "nearest that is: stem",
        ),
        (
            {"wanted": "hidden", "model": VGG},
            "the part up to hidden does in training what it does not do in evaluation, such as dropout; "
            "nearest that is: pool",
        ),
        ({"wanted": "stage9"}, "unknown cache.boundary 'stage9'; nearest: stage"),
        ({"wanted": "head"}, "unknown cache.boundary 'head'"),
    ],
)
def test_refusals_say_why_and_what_would_be_exact(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        choose(**options)


def test_the_part_of_a_tree_before_a_boundary():
    params = {name: {} for name in ("head", "stage1", "stage2", "stage3", "stem")}
    assert sorted(features.prefix_of(MODEL, "stage1", params)) == ["stage1", "stem"]
    assert sorted(features.prefix_of(MODEL, "pool", params)) == [
        "stage1",
        "stage2",
        "stage3",
        "stem",
    ]
