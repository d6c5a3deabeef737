"""Updates: by hand, against PyTorch, and by compiled cost."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tl_jax import freezing, objectives, optim, trees
from tl_jax.errors import InputError

BOUNDARIES = ("stem", "stage1", "stage2", "pool", "head")


def make_params():
    return {
        "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "stage1": {"conv": {"kernel": jnp.ones((1, 1, 2, 2))}},
        "stage2": {"bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)}},
        "stem": {"conv": {"kernel": jnp.ones((1, 1, 3, 2))}},
    }


def make_optimizer(params, schedule, **arguments):
    """Returns the transformation; arguments that are fields of `Rule` go there."""
    names = {field.name for field in dataclasses.fields(optim.Rule)}
    rule = optim.Rule(**{name: arguments.pop(name) for name in names & arguments.keys()})
    return optim.make_optimizer(params, schedule, rule, **arguments)


def two_updates(grads=1.0, **arguments):
    """Returns kernel and bias, both from 1, after each of two updates with the same gradient."""
    params = {"head": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}}
    tx = make_optimizer(params, lambda step: 0.1, **arguments)
    opt_state, seen = tx.init(params), []
    for _ in range(2):
        updates, opt_state = tx.update(
            jax.tree.map(lambda w: w * 0 + grads, params), opt_state, params
        )
        params = optax.apply_updates(params, updates)
        seen.append([params["head"]["kernel"].item(), params["head"]["bias"].item()])
    return np.array(seen)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"momentum": 0.0}, [[0.9, 0.9], [0.8, 0.8]], id="plain"),
        # v = 1, then 0.9 + 1.
        pytest.param({}, [[0.9, 0.9], [0.71, 0.71]], id="momentum"),
        # Kernel: g = 1.1, v = 1.1; then g = 1.089, v = 0.99 + 1.089. The bias does not decay.
        pytest.param({"weight_decay": 0.1}, [[0.89, 0.9], [0.6821, 0.71]], id="decay"),
        pytest.param(
            {"weight_decay": 0.1, "decay_bias_and_norm": True},
            [[0.89, 0.89], [0.6821, 0.6821]],
            id="decay of everything",
        ),
        # Kernel: g + 0.9 v = 1.1 + 0.99; then g = 1.0791, v = 2.0691, g + 0.9 v = 2.94129.
        pytest.param(
            {"weight_decay": 0.1, "nesterov": True},
            [[0.791, 0.81], [0.496871, 0.539]],
            id="nesterov",
        ),
        # A constant gradient makes m_hat / sqrt(v_hat) 1, so w <- w - 0.1 (1 + 0.1 w).
        pytest.param(
            {"name": "adamw", "weight_decay": 0.1}, [[0.89, 0.9], [0.7811, 0.8]], id="adamw"
        ),
        # The multiplier scales the decoupled decay too: 1 - 0.2 (1 + 0.1), then 0.78 - 0.2 (1.078).
        pytest.param(
            {
                "name": "adamw",
                "weight_decay": 0.1,
                "multipliers": {"head": {"kernel": 2.0, "bias": 0.5}},
            },
            [[0.78, 0.95], [0.5644, 0.9]],
            id="adamw with multipliers",
        ),
        # The norm of (2, 2) is 2 sqrt(2); clipped to 1 each part is 1 / sqrt(2).
        pytest.param(
            {"momentum": 0.0, "clip_norm": 1.0, "grads": 2.0},
            [[1 - 0.1 * 0.5**0.5] * 2, [1 - 0.2 * 0.5**0.5] * 2],
            id="clipped",
        ),
        pytest.param(
            {"momentum": 0.0, "clip_norm": 3.0, "grads": 2.0},
            [[0.8, 0.8], [0.6, 0.6]],
            id="below the clipping norm",
        ),
        # The bias is frozen: the norm is the kernel's alone, 2.
        pytest.param(
            {
                "momentum": 0.0,
                "clip_norm": 1.0,
                "grads": 2.0,
                "frozen_mask": {"head": {"kernel": False, "bias": True}},
            },
            [[0.9, 1.0], [0.8, 1.0]],
            id="clipped inside the partition",
        ),
    ],
)
def test_updates_by_hand(arguments, expected):
    np.testing.assert_allclose(two_updates(**arguments), expected, rtol=2e-6)


def test_frozen_leaves_have_no_optimizer_state():
    params = make_params()
    for name, copies in [("sgd", 1), ("adamw", 2)]:
        mask = freezing.frozen_mask(params, "backbone")
        tx = optim.make_optimizer(params, lambda step: 0.1, optim.Rule(name=name), frozen_mask=mask)
        arrays = [leaf for leaf in jax.tree.leaves(tx.init(params)) if leaf.ndim]
        assert sum(leaf.size for leaf in arrays) == copies * (4 + 2)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        pytest.param({"name": "sdg"}, ["unknown optimizer 'sdg'", "nearest: sgd"], id="name"),
        pytest.param({"momentum": 1.0}, ["momentum is 1.0", "[0, 1)"], id="momentum"),
        pytest.param({"momentum": -0.1}, ["momentum is -0.1"], id="negative momentum"),
        pytest.param({"momentum": 0.0, "nesterov": True}, ["nesterov is True"], id="nesterov"),
        pytest.param({"weight_decay": -1e-4}, ["weight_decay is -0.0001"], id="decay"),
        pytest.param({"clip_norm": -1.0}, ["clip_norm is -1.0"], id="clipping"),
        pytest.param({"name": "adamw", "b1": 1.0}, ["b1 is 1.0"], id="b1"),
        pytest.param({"name": "adamw", "b2": 1.5}, ["b2 is 1.5"], id="b2"),
        pytest.param({"name": "adamw", "eps": 0.0}, ["eps is 0.0", "above 0"], id="eps"),
        pytest.param(
            {"momentum": 2, "clip_norm": math.inf}, ["momentum is 2", "clip_norm is inf"], id="all"
        ),
        pytest.param(
            {"multipliers": {"head": {"kernel": 1.0, "scale": 1.0}}},
            ["multipliers", "head/bias: missing", "head/scale: not expected"],
            id="multipliers of another tree",
        ),
        pytest.param(
            {"frozen_mask": {"head": {"kernel": True}}},
            ["frozen_mask", "head/bias: missing"],
            id="mask of another tree",
        ),
    ],
)
def test_make_optimizer_refuses(arguments, parts):
    params = {"head": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}}
    with pytest.raises(InputError) as caught:
        make_optimizer(params, lambda step: 0.1, **arguments)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("as_data", [False, True], ids=["number", "data"])
@pytest.mark.parametrize(
    ("pulled", "expected"),
    [
        pytest.param(0.5, {"stage1/kernel": 0.0, "head/kernel": 0.2}, id="the head alone decays"),
        pytest.param(0.0, {"stage1/kernel": 0.2, "head/kernel": 0.2}, id="off: all kernels decay"),
    ],
)
def test_weight_decay_beside_l2_sp(pulled, expected, as_data):
    params = {"stage1": {"kernel": jnp.ones((1, 1))}, "head": {"kernel": jnp.ones((1, 1))}}

    def decays(pulled):
        rule = optim.Rule(momentum=0.0, weight_decay=0.2)
        tx = optim.make_optimizer(
            params, lambda step: 1.0, rule, undecayed=objectives.L2SP.pulled(params, pulled)
        )
        return tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)[0]

    found = jax.jit(decays)(pulled) if as_data else decays(pulled)
    assert {name: -leaf.item() for name, leaf in trees.flatten(found).items()} == pytest.approx(
        expected
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_numbers_and_data_give_the_same_updates(name):
    params = make_params()
    grads = jax.tree.map(lambda w: 0.3 * w + 0.1, params)
    given = {"learning_rate": 0.3, "weight_decay": 0.01, "l2_sp": 0.05}

    def twice(given):
        given = dict(given)
        given["undecayed"] = objectives.L2SP.pulled(params, given.pop("l2_sp"))
        schedule = optim.make_schedule("cosine", given.pop("learning_rate"), 4, warmup_steps=1)
        tx = make_optimizer(params, schedule, name=name, **given)
        opt_state, after = tx.init(params), params
        for _ in range(2):
            updates, opt_state = tx.update(grads, opt_state, after)
            after = optax.apply_updates(after, updates)
        return after

    for number, data in zip(
        jax.tree.leaves(twice(given)), jax.tree.leaves(jax.jit(twice)(given)), strict=True
    ):
        np.testing.assert_allclose(number, data, rtol=3e-7)


TORCH_CASES = [
    pytest.param("sgd", {"momentum": 0.0}, 0.0, id="sgd"),
    pytest.param("sgd", {"momentum": 0.9}, 0.0, id="momentum"),
    pytest.param("sgd", {"momentum": 0.9, "weight_decay": 0.05}, 0.0, id="weight decay"),
    pytest.param(
        "sgd", {"momentum": 0.9, "weight_decay": 0.05, "nesterov": True}, 0.0, id="nesterov"
    ),
    pytest.param("sgd", {"momentum": 0.9, "weight_decay": 0.05}, 0.7, id="sgd clipped"),
    pytest.param("adamw", {"weight_decay": 0.05}, 0.0, id="adamw"),
    pytest.param("adamw", {"weight_decay": 0.3, "b1": 0.8, "b2": 0.9}, 0.7, id="adamw clipped"),
]


@pytest.mark.parametrize(("name", "arguments", "clip_norm"), TORCH_CASES)
def test_twenty_updates_equal_pytorch(name, arguments, clip_norm):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = {leaf: leaf_value.shape for leaf, leaf_value in trees.flatten(make_params()).items()}
    start = {leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in shapes.items()}
    target = {leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in shapes.items()}
    multipliers = optim.lr_multipliers(
        trees.unflatten(start), ["head/.*=3"], 0.5, boundaries=BOUNDARIES
    )
    schedule = optim.make_schedule("cosine", 0.05, 20, warmup_steps=5)

    params = trees.unflatten({leaf: jnp.asarray(value) for leaf, value in start.items()})
    tx = make_optimizer(
        params, schedule, name=name, clip_norm=clip_norm, multipliers=multipliers, **arguments
    )

    @jax.jit
    def train(params, opt_state):
        grads = jax.tree.map(lambda w, t: (w - t) ** 3, params, trees.unflatten(target))
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    tensors = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    reference = _torch_optimizer(torch, tensors, name, dict(arguments), multipliers)
    opt_state = tx.init(params)
    for step in range(20):
        before = trees.flatten(params)
        params, opt_state = train(params, opt_state)
        for group in reference.param_groups:
            group["lr"] = float(schedule(step)) * group["multiplier"]
        for leaf, tensor in tensors.items():
            tensor.grad = (tensor.detach() - torch.tensor(target[leaf])) ** 3
        if clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)
            found = optax.tree.norm({leaf: (w - target[leaf]) ** 3 for leaf, w in before.items()})
            assert float(found) == pytest.approx(float(norm), rel=1e-5)
        reference.step()
        for leaf, value in trees.flatten(params).items():
            np.testing.assert_allclose(
                value, tensors[leaf].detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=leaf
            )


def _torch_optimizer(torch, tensors, name, arguments, multipliers):
    if name == "adamw":
        arguments["betas"] = (arguments.pop("b1", 0.9), arguments.pop("b2", 0.999))
    weight_decay = arguments.pop("weight_decay", 0.0)
    groups = [
        {
            "params": [tensor],
            "multiplier": multiplier,
            "weight_decay": weight_decay if leaf.endswith("kernel") else 0.0,
        }
        for (leaf, tensor), multiplier in zip(
            tensors.items(), trees.flatten(multipliers).values(), strict=True
        )
    ]
    optimizers = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    return optimizers[name](groups, lr=0.1, **arguments)


def conv_net(params, images):
    x = images
    for group in ("stem", "stage1", "stage2"):
        x = jax.lax.conv_general_dilated(
            x,
            params[group]["conv"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x)
    return jnp.mean(x, axis=(1, 2)) @ params["head"]["kernel"]


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_head_only_training_compiles_to_the_forward_pass():
    widths = {"stem": (3, 16), "stage1": (16, 16), "stage2": (16, 16)}
    params = {
        group: {"conv": {"kernel": jnp.ones((3, 3, *width))}} for group, width in widths.items()
    }
    params["head"] = {"kernel": jnp.ones((16, 4))}
    images = jnp.ones((8, 16, 16, 3))

    def step_flops(strategy):
        tx = optim.make_optimizer(
            params,
            optim.make_schedule("cosine", 0.1, 100, warmup_steps=10),
            optim.Rule(weight_decay=1e-4, clip_norm=1.0),
            multipliers=optim.lr_multipliers(params, layerwise_decay=0.7, boundaries=BOUNDARIES),
            frozen_mask=freezing.frozen_mask(params, strategy, boundaries=BOUNDARIES),
        )

        def train(params, opt_state, images):
            grads = jax.grad(lambda p: jnp.mean(conv_net(p, images) ** 2))(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return flops(train, params, tx.init(params), images)

    forward = flops(conv_net, params, images)
    assert step_flops("backbone") <= 1.05 * forward
    assert step_flops("none") >= 2.5 * forward


def test_a_plateau_lowers_the_rate_where_the_mean_loss_no_longer_falls():
    """Means of two losses: 2, 1, then 1.5 twice, 1.5, 0.5: the rate falls after two means that are not lower."""
    params = make_params()
    mask = freezing.frozen_mask(params, "up_to:stem", boundaries=BOUNDARIES)
    plateau = optim.Plateau(factor=0.5, patience=2, every=2)
    tx = make_optimizer(params, lambda step: 0.1, momentum=0.9, frozen_mask=mask, plateau=plateau)
    plain = make_optimizer(params, lambda step: 0.1, momentum=0.9, frozen_mask=mask)
    states, scales = [tx.init(params), plain.init(params)], []
    grads = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(tx.update)
    for value in [3.0, 1.0, 1.5, 0.5, 1.0, 2.0, 1.5, 1.5, 1.4, 1.6, 0.6, 0.4]:
        updates, states[0] = update(grads, states[0], params, value=jnp.float32(value))
        expected, states[1] = plain.update(grads, states[1], params)
        scale = float(optim.plateau_scale(states[0]))
        found, wanted = trees.flatten(updates), trees.flatten(expected)
        np.testing.assert_allclose(found["head/kernel"], scale * wanted["head/kernel"], rtol=1e-6)
        scales.append(scale)
    assert scales == [1.0] * 7 + [0.5] * 5
    assert optim.plateau_scale(states[1]) is None


def test_an_own_optimizer_has_a_plateau_too():
    params = make_params()
    tx = optim.wrap_optimizer(
        optax.sgd(0.1),
        multipliers=jax.tree.map(lambda _: 1.0, params),
        frozen_mask=jax.tree.map(lambda _: False, params),
        plateau=optim.Plateau(factor=0.1, patience=1),
    )
    state, grads = tx.init(params), jax.tree.map(jnp.ones_like, params)
    moved = []
    for value in (1.0, 2.0):
        updates, state = tx.update(grads, state, params, value=jnp.float32(value))
        moved.append(float(updates["head"]["bias"][0]))
    assert moved == pytest.approx([-0.1, -0.01])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, r"factor is 1.0, expected a number in \(0, 1\)"),
        ({"patience": 0}, "patience is 0, expected a whole number from 1"),
        ({"every": 0.5}, "every is 0.5, expected a whole number from 1"),
    ],
)
def test_a_plateau_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        optim.Plateau(**arguments)
