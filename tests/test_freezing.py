"""Masks, the table before training, and the proof after it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import freezing, optim, trees
from tl_jax.errors import InputError

BOUNDARIES = ("stem", "stage1", "stage2", "pool", "head")


def make_params():
    """Returns a network of stem, two stages and head; keys in no useful order."""
    ones = jnp.ones
    return {
        "head": {"kernel": ones((4, 2)), "bias": ones(2)},
        "stage2": {"block0": {"conv1": {"kernel": ones((1, 1, 4, 4))}, "bn1": norm()}},
        "stage1": {"block0": {"conv1": {"kernel": ones((3, 3, 4, 4))}, "bn1": norm()}},
        "stem": {"conv": {"kernel": ones((3, 3, 3, 4))}, "bn": norm()},
    }


def norm():
    return {"scale": jnp.ones(4), "bias": jnp.zeros(4)}


def make_stats():
    statistics = {"mean": jnp.zeros(4), "var": jnp.ones(4)}
    return {
        "stem": {"bn": statistics},
        "stage1": {"block0": {"bn1": statistics}},
        "stage2": {"block0": {"bn1": statistics}},
    }


STEM = ["stem/bn/bias", "stem/bn/scale", "stem/conv/kernel"]
STAGE1 = ["stage1/block0/bn1/bias", "stage1/block0/bn1/scale", "stage1/block0/conv1/kernel"]
STAGE2 = ["stage2/block0/bn1/bias", "stage2/block0/bn1/scale", "stage2/block0/conv1/kernel"]
CONVS = ["stage1/block0/conv1/kernel", "stage2/block0/conv1/kernel", "stem/conv/kernel"]

SCALES = ["stage1/block0/bn1/scale", "stage2/block0/bn1/scale", "stem/bn/scale"]

STRATEGIES = [
    pytest.param("none", (), [], id="none"),
    pytest.param("backbone", (), [*STEM, *STAGE1, *STAGE2], id="backbone"),
    pytest.param("up_to:stem", (), STEM, id="up to the stem"),
    pytest.param("up_to:stage1", (), [*STEM, *STAGE1], id="up to stage 1"),
    pytest.param("up_to:stage2", (), [*STEM, *STAGE1, *STAGE2], id="up to the last stage"),
    pytest.param("all_but_bn", (), CONVS, id="all but BatchNorm and head"),
    pytest.param("top:0", (), [*STEM, *STAGE1, *STAGE2], id="the head alone"),
    pytest.param("top:1", (), [*STEM, *STAGE1], id="one group before the head"),
    pytest.param("top:3", (), [], id="all groups"),
    pytest.param("only:stage1", (), [*STEM, *STAGE2], id="one group and the head"),
    pytest.param("only:stem", (), [*STAGE1, *STAGE2], id="the stem and the head"),
    pytest.param("all_but_bias", (), [*CONVS, *SCALES], id="all but biases and head"),
    pytest.param("none", ["stem/.*"], STEM, id="pattern"),
    pytest.param("up_to:stem", [".*/conv1/kernel"], [*STEM, *CONVS[:2]], id="strategy and pattern"),
]


@pytest.mark.parametrize(("strategy", "patterns", "frozen"), STRATEGIES)
def test_frozen_mask(strategy, patterns, frozen):
    params = make_params()
    mask = freezing.frozen_mask(params, strategy, patterns, boundaries=BOUNDARIES)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    flat = trees.flatten(mask)
    assert {type(value) for value in flat.values()} == {bool}
    assert sorted(name for name, value in flat.items() if value) == sorted(frozen)


@pytest.mark.parametrize(
    ("strategy", "patterns", "parts"),
    [
        pytest.param("backbon", (), ["'backbon'", "nearest: backbone"], id="strategy"),
        pytest.param("up_to:stage3", (), ["'stage3'", "known: stage1, stage2, stem"], id="stage"),
        pytest.param("top:4", (), ["'top:4': expected top:0", "to top:3 (all"], id="too many"),
        pytest.param("top:-1", (), ["'top:-1': expected top:0"], id="below 0"),
        pytest.param("top:all", (), ["'top:all': expected top:0"], id="no number"),
        pytest.param("top:", (), ["'top:'", "known: all_but_adapters"], id="nothing"),
        pytest.param("only:stage3", (), ["only:GROUP 'stage3'", "known: stage1"], id="only"),
        pytest.param("only:head", (), ["only:GROUP 'head'", "known: stage1"], id="only head"),
        pytest.param("last:1", (), ["unknown freezing strategy 'last:1'"], id="kind"),
        pytest.param("up_to:head", (), ["'head'", "known: stage1"], id="up to the head"),
        pytest.param("none", ["stage9/.*"], ["'stage9/.*' matches no leaf"], id="pattern"),
        pytest.param("none", ["(stem"], ["'(stem' is not a regular expression"], id="malformed"),
        pytest.param("none", [".*"], ["freezes all 11 leaves", "nothing is left"], id="everything"),
        pytest.param("backbone", ["head/.*"], ["strategy 'backbone' with patterns"], id="both"),
    ],
)
def test_frozen_mask_refuses(strategy, patterns, parts):
    with pytest.raises(InputError) as caught:
        freezing.frozen_mask(make_params(), strategy, patterns, boundaries=BOUNDARIES)
    for part in parts:
        assert part in str(caught.value)


def test_groups_are_in_the_order_of_the_boundaries():
    boundaries = ("zero", "stage2", "pool", "stage1", "head")
    params = dict.fromkeys(["head", "stage1", "stage2", "zero"])
    assert freezing.groups(params, boundaries) == ("zero", "stage2", "stage1", "head")
    with pytest.raises(InputError, match="groups neck; expected boundaries: zero, stage2, pool"):
        freezing.groups({**params, "neck": {}}, boundaries)


def test_what_depends_on_the_order_needs_the_boundaries():
    with pytest.raises(InputError, match="strategy 'up_to:stem' needs the boundaries"):
        freezing.frozen_mask(make_params(), "up_to:stem")
    with pytest.raises(InputError, match="layerwise_decay needs the boundaries"):
        optim.lr_multipliers(make_params(), layerwise_decay=0.5)


def test_all_but_bn_without_any_is_refused():
    params = {"stage1": {"kernel": np.zeros(2)}, "head": {"kernel": np.zeros(2)}}
    with pytest.raises(InputError, match="'all_but_bn': the network has no BatchNorm; expected"):
        freezing.frozen_mask(params, "all_but_bn")


def test_all_but_adapters_trains_norms_and_the_head_as_well():
    params = make_params()
    params["stage1"]["block0"]["conv1"]["adapter"] = jnp.ones((4, 4))
    mask = freezing.frozen_mask(params, "all_but_adapters", boundaries=BOUNDARIES)
    frozen = [name for name, value in trees.flatten(mask).items() if value]
    assert sorted(frozen) == sorted(CONVS)
    with pytest.raises(
        InputError, match=r"the network has no adapters \(model\.adapters\); expected"
    ):
        freezing.frozen_mask(make_params(), "all_but_adapters")


def test_all_but_bias_without_any_is_refused():
    params = {"stage1": {"kernel": np.zeros(2)}, "head": {"bias": np.zeros(2)}}
    with pytest.raises(InputError, match="'all_but_bias': the network has no biases before the"):
        freezing.frozen_mask(params, "all_but_bias")


@pytest.mark.parametrize(
    ("strategy", "patterns", "expected"),
    [
        pytest.param("none", (), [], id="none"),
        pytest.param("up_to:stage1", (), ["stage1/block0/bn1", "stem/bn"], id="two stages"),
        pytest.param("none", ["stem/bn/scale"], [], id="half a module is not frozen"),
        pytest.param("none", ["stem/bn/.*"], ["stem/bn"], id="a whole module is"),
        pytest.param("all_but_bn", (), [], id="BatchNorm is what trains"),
        pytest.param("all_but_bias", (), [], id="its bias is trained"),
        pytest.param("only:stage2", (), ["stage1/block0/bn1", "stem/bn"], id="of other groups"),
    ],
)
def test_frozen_norms(strategy, patterns, expected):
    params = make_params()
    norms = freezing.frozen_norms(
        params, freezing.frozen_mask(params, strategy, patterns, boundaries=BOUNDARIES)
    )
    assert norms == frozenset(expected)


def test_summary_of_momentum_sgd():
    params, patterns = make_params(), ["stage2/.*/kernel"]
    mask = freezing.frozen_mask(params, "up_to:stage1", patterns, boundaries=BOUNDARIES)
    multipliers = optim.lr_multipliers(params, ["head/bias=2", ".*=0.5"])
    tx = optim.make_optimizer(params, lambda step: 0.1, multipliers=multipliers, frozen_mask=mask)
    rows = freezing.summary(
        params, make_stats(), mask, "frozen", multipliers, tx.init(params), boundaries=BOUNDARIES
    )
    columns = ["parameters", "trainable", "state", "batch_norm", "lr_multiplier"]
    columns += ["statistics", "optimizer_state_bytes"]
    assert {row["group"]: [row[column] for column in columns] for row in rows} == {
        "stem": [108 + 8, 0, "frozen", "frozen", "-", 8, 0],
        "stage1": [144 + 8, 0, "frozen", "frozen", "-", 8, 0],
        "stage2": [16 + 8, 8, "mixed", "update", 0.5, 8, 32],
        "head": [10, 10, "trainable", "-", "0.5 to 2", 0, 40],
    }
    assert [row["group"] for row in rows] == ["stem", "stage1", "stage2", "head"]


def test_summary_of_adamw_counts_both_moments():
    params = make_params()
    mask = freezing.frozen_mask(params, "backbone", boundaries=BOUNDARIES)
    tx = optim.make_optimizer(params, lambda step: 0.1, optim.Rule(name="adamw"), frozen_mask=mask)
    rows = freezing.summary(
        params,
        make_stats(),
        mask,
        "batch_stats_no_update",
        None,
        tx.init(params),
        boundaries=BOUNDARIES,
    )
    assert [row["optimizer_state_bytes"] for row in rows] == [0, 0, 0, 2 * 10 * 4]
    assert rows[0]["batch_norm"] == "batch_stats_no_update"
    assert rows[3]["lr_multiplier"] == 1.0


def test_summary_needs_only_shapes():
    params, stats = make_params(), make_stats()
    mask = freezing.frozen_mask(params, "up_to:stem", boundaries=BOUNDARIES)
    tx = optim.make_optimizer(params, lambda step: 0.1, frozen_mask=mask)
    shapes = jax.eval_shape(lambda: (params, stats))
    rows = freezing.summary(
        *shapes, mask, "frozen", None, jax.eval_shape(tx.init, params), boundaries=BOUNDARIES
    )
    assert rows == freezing.summary(
        params, stats, mask, "frozen", None, tx.init(params), boundaries=BOUNDARIES
    )


def test_summary_says_how_many_norms_of_a_group_are_frozen():
    params = {"stage1": {"bn1": norm(), "bn2": norm(), "gn": norm()}}  # GroupNorm has no statistics
    stats = {"stage1": {"bn1": {"mean": np.zeros(4)}, "bn2": {"mean": np.zeros(4)}}}
    mask = freezing.frozen_mask(params, "none", [".*/bn2/.*"], boundaries=BOUNDARIES)
    rows = freezing.summary(params, stats, mask, "frozen", None, (), boundaries=BOUNDARIES)
    assert rows[0]["batch_norm"] == "frozen (1 of 2)"
    assert (
        freezing.summary(params, stats, mask, "update", None, (), boundaries=BOUNDARIES)[0][
            "batch_norm"
        ]
        == "update"
    )


def variables():
    return {"params": make_params(), "batch_stats": make_stats()}


def changed_at(tree, name, value):
    flat = trees.flatten(tree)
    return trees.unflatten({**flat, name: jnp.asarray(value)})


@pytest.mark.parametrize(
    ("part", "name", "value", "policy", "changed"),
    [
        pytest.param("params", "head/bias", [5.0, 5.0], "frozen", [], id="trainable leaf"),
        pytest.param(
            "params", "stem/bn/bias", [0, 0, 0, 1e-45], "frozen", ["stem/bn/bias"], id="one bit"
        ),
        pytest.param(
            "params", "stem/bn/bias", [0, 0, 0, -0.0], "frozen", ["stem/bn/bias"], id="minus 0"
        ),
        pytest.param(
            "params",
            "stem/bn/bias",
            np.zeros(4, np.float16),
            "frozen",
            ["stem/bn/bias"],
            id="dtype",
        ),
        pytest.param(
            "batch_stats",
            "stem/bn/mean",
            [0.0, 0.0, 0.1, 0.0],
            "frozen",
            ["batch_stats/stem/bn/mean"],
            id="statistic",
        ),
        pytest.param(
            "batch_stats",
            "stem/bn/mean",
            [0.0, 0.0, 0.1, 0.0],
            "batch_stats_no_update",
            ["batch_stats/stem/bn/mean"],
            id="statistic without update",
        ),
        pytest.param(
            "batch_stats", "stem/bn/mean", [0, 0, 1, 0], "update", [], id="statistic with update"
        ),
        pytest.param(
            "batch_stats",
            "stage2/block0/bn1/var",
            [2, 2, 2, 2],
            "frozen",
            [],
            id="trainable statistic",
        ),
    ],
)
def test_verify_unchanged_compares_bits(part, name, value, policy, changed):
    before = variables()
    mask = freezing.frozen_mask(before["params"], "up_to:stage1", boundaries=BOUNDARIES)
    norms = freezing.frozen_norms(before["params"], mask)
    value = value if isinstance(value, np.ndarray) else np.asarray(value, np.float32)
    after = {**before, part: changed_at(before[part], name, value)}
    assert freezing.verify_unchanged(before, after, mask, norms, policy) == {
        "frozen_leaves": 6,
        "frozen_statistics": 0 if policy == "update" else 4,
        "changed": changed,
    }


def test_digests_tell_bits_types_and_shapes_apart():
    before = variables()
    mask = freezing.frozen_mask(before["params"], "up_to:stem", boundaries=BOUNDARIES)
    digests = freezing.digests(before, mask, {"stem/bn"}, "frozen")
    assert {name for name in digests if name.startswith("batch_stats/")} == {
        "batch_stats/stem/bn/mean",
        "batch_stats/stem/bn/var",
    }
    assert all(name.split("/")[1] == "stem" for name in digests)
    assert not any(
        name.startswith("batch_stats/")
        for name in freezing.digests(before, mask, {"stem/bn"}, "update")
    )
    bias = np.asarray(before["params"]["stem"]["bn"]["bias"])
    others = (bias + np.float32(1), bias.view(np.int32), bias.reshape(1, -1))
    for other, changed in [(bias.copy(), []), *((one, ["stem/bn/bias"]) for one in others)]:
        after = {**before, "params": changed_at(before["params"], "stem/bn/bias", other)}
        assert freezing.verify_digests(digests, after)["changed"] == changed


def test_nan_equals_itself():
    before = variables()
    before["params"] = changed_at(before["params"], "stem/bn/bias", [float("nan")] * 4)
    mask = freezing.frozen_mask(before["params"], "up_to:stem", boundaries=BOUNDARIES)
    assert freezing.verify_unchanged(before, before, mask, {"stem/bn"}, "frozen")["changed"] == []


@pytest.mark.parametrize(("strategy", "patterns", "frozen"), STRATEGIES)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_updates_move_every_trainable_leaf_and_no_frozen_one(strategy, patterns, frozen, name):
    params = make_params()
    mask = freezing.frozen_mask(params, strategy, patterns, boundaries=BOUNDARIES)
    tx = optim.make_optimizer(
        params,
        optim.make_schedule("constant", 0.1, 3),
        optim.Rule(name=name, weight_decay=0.1, decay_bias_and_norm=True, clip_norm=1.0),
        multipliers=optim.lr_multipliers(params, layerwise_decay=0.5, boundaries=BOUNDARIES),
        frozen_mask=mask,
    )

    @jax.jit
    def train(params, opt_state):
        grads = jax.tree.map(lambda leaf: leaf + 1, params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return jax.tree.map(lambda leaf, update: leaf + update, params, updates), opt_state

    trained, opt_state = params, tx.init(params)
    for _ in range(3):
        trained, opt_state = train(trained, opt_state)
    old, new = trees.flatten(params), trees.flatten(trained)
    moved = [leaf for leaf in old if not np.array_equal(old[leaf], new[leaf])]
    assert sorted(moved) == sorted(set(old) - set(frozen))
