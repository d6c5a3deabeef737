"""Averages of the weights by hand and in NumPy; statistics of BatchNorm estimated again, against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import freezing, models, trees
from tl_jax.errors import InputError
from tl_jax.training import averaging, norm_statistics
from tl_jax.training.averaging import Averaging
from tl_jax.training.state import TrainState

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(9, 2)).astype(np.float32)  # after 0, 1, ..., 8 updates


def averages_along(average):
    """Returns the averages after each of eight updates."""

    def params(values):
        return {"stem": {"kernel": jnp.ones(1)}, "head": {"kernel": jnp.asarray(values)}}

    states = [
        TrainState(jnp.int32(step), jnp.int32(0), params(values), {}, ())
        for step, values in enumerate(WEIGHTS)
    ]
    current, found = average.init(states[0].params, {}), []
    for state in states[1:]:
        current = jax.jit(average.update)(state.replace(average=current))
        found.append(np.asarray(current["params/head/kernel"]))
    return found, current


def test_ema_in_numpy():
    found, last = averages_along(Averaging("ema", ("params/head/kernel",), decay=0.5))
    expected = WEIGHTS[0].astype(np.float64)
    for n, (values, ours) in enumerate(zip(WEIGHTS[1:], found, strict=True)):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * values
        np.testing.assert_allclose(ours, expected, rtol=1e-6, err_msg=str(n))
    assert int(last["count"]) == 8
    assert set(last) == {"params/head/kernel", "count"}


def test_swa_is_the_mean_of_its_samples():
    found, last = averages_along(Averaging("swa", ("params/head/kernel",), first=3, every=2))
    np.testing.assert_array_equal(found[1], WEIGHTS[0])  # no sample yet
    np.testing.assert_allclose(found[2], WEIGHTS[3], rtol=1e-6)
    np.testing.assert_allclose(found[3], WEIGHTS[3], rtol=1e-6)  # update 4 is none
    np.testing.assert_allclose(found[-1], WEIGHTS[[3, 5, 7]].mean(0), rtol=1e-6)
    assert int(last["count"]) == 3


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_wise_ft_is_between_the_start_and_the_live_weights(alpha):
    average = Averaging("wise_ft", ("params/head/kernel",), alpha=alpha)
    _, last = averages_along(average)
    np.testing.assert_array_equal(last["params/head/kernel"], WEIGHTS[0])
    assert int(last["count"]) == 8
    params = {"stem": {"kernel": jnp.ones(1)}, "head": {"kernel": jnp.asarray(WEIGHTS[8])}}
    state = TrainState(jnp.int32(8), jnp.int32(0), params, {}, (), last)
    found = average.variables(state)["params"]
    expected = (1 - alpha) * WEIGHTS[0].astype(np.float64) + alpha * WEIGHTS[8]
    np.testing.assert_allclose(found["head"]["kernel"], expected, rtol=1e-6)
    if alpha in (0.0, 1.0):
        np.testing.assert_array_equal(found["head"]["kernel"], WEIGHTS[8 if alpha else 0])
    np.testing.assert_array_equal(found["stem"]["kernel"], [1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1.5, expected a number in \[0, 1\]"),
        ({"name": "emma"}, r"unknown average 'emma'.*ema"),
        ({"decay": 1.0}, r"decay is 1.0, expected a number in \[0, 1\)"),
        ({"first": 0, "every": 0}, "first is 0, expected .*\nevery is 0, expected"),
    ],
)
def test_bad_averages(changes, message):
    with pytest.raises(InputError, match=message):
        Averaging(**{"name": "swa", "leaves": (), **changes})


SMALL = models.ResNet((1, 1), "basic", 3, stem_kind="cifar", width=4)


def small_variables():
    return models.init_variables(SMALL, jax.random.key(0), (1, 8, 8, 3))


@pytest.mark.parametrize(
    ("strategy", "policy", "statistics"),
    [("none", "frozen", 12), ("up_to:stage1", "frozen", 6), ("up_to:stage1", "update", 12)],
)
def test_what_is_averaged(strategy, policy, statistics):
    variables = small_variables()
    mask = freezing.frozen_mask(variables["params"], strategy, boundaries=SMALL.boundaries)
    norms = freezing.frozen_norms(variables["params"], mask)
    names = averaging.averaged_leaves(mask, variables["batch_stats"], norms, policy)
    assert len([name for name in names if name.startswith("batch_stats/")]) == statistics
    assert ("params/stem/conv/kernel" in names) == (strategy == "none")
    assert "params/head/bias" in names


def test_averaged_variables_keep_the_other_leaves():
    variables = small_variables()
    average = Averaging("ema", ("params/head/bias",))
    state = TrainState(
        jnp.int32(0),
        jnp.int32(0),
        variables["params"],
        variables["batch_stats"],
        (),
        average.init(variables["params"], variables["batch_stats"]),
    )
    assert not averaging.has_average(state)
    assert not averaging.has_average(state.replace(average={}))
    state = state.replace(average={"params/head/bias": jnp.full(3, 7.0), "count": jnp.int32(1)})
    assert averaging.has_average(state)
    found = average.variables(state)
    np.testing.assert_array_equal(found["params"]["head"]["bias"], np.full(3, 7.0))
    assert found["params"]["stem"]["conv"]["kernel"] is state.params["stem"]["conv"]["kernel"]
    assert jax.tree.structure(found["batch_stats"]) == jax.tree.structure(state.batch_stats)


def moving_of(variables):
    return set(trees.flatten(variables["batch_stats"]))


def batches(count=3, size=8, scale=1.0):
    rng = np.random.default_rng(1)
    return [
        {"image": (scale * rng.normal(2.0, 1.5, size=(size, 8, 8, 3))).astype(np.float32)}
        for _ in range(count)
    ]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_statistics_are_the_means_of_those_of_the_batches(scale):
    """The stem's are worked out in NumPy from the convolution's output."""
    given = batches(scale=scale)
    variables = small_variables()
    step = jax.jit(
        norm_statistics.make_statistics_step(
            models.make_forward(SMALL), lambda images: images, moving_of(small_variables())
        )
    )
    found = norm_statistics.estimate(step, variables["params"], variables["batch_stats"], given)
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    means, variances = [], []
    for batch in given:
        maps = jax.lax.conv_general_dilated(
            batch["image"], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        values = np.asarray(maps, np.float64).reshape(-1, 4)
        means.append(values.mean(0))
        variances.append(values.var(0, ddof=1))
    np.testing.assert_allclose(
        found["stem"]["bn"]["mean"], np.mean(means, 0), rtol=2e-5, atol=2e-5 * scale
    )
    np.testing.assert_allclose(found["stem"]["bn"]["var"], np.mean(variances, 0), rtol=2e-5)


def test_statistics_of_groups_are_those_of_as_many_batches():
    variables = small_variables()

    def estimated(rows, given):
        forward = models.make_forward(SMALL.clone(batch_norm_rows=rows))
        step = norm_statistics.make_statistics_step(
            forward, lambda images: images, moving_of(variables)
        )
        return norm_statistics.estimate(
            jax.jit(step), variables["params"], variables["batch_stats"], given
        )

    groups = [{"image": images} for one in batches() for images in np.split(one["image"], 2)]
    expected = trees.flatten(estimated(0, groups))
    for name, leaf in trees.flatten(estimated(4, batches())).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_the_program_does_not_depend_on_the_order_of_a_set():
    """Every process of a run lowers the same one, whatever the hashes of its texts."""
    variables = small_variables()
    moving = sorted(moving_of(variables))
    texts = []
    for names in (moving, moving[::-1]):
        step = norm_statistics.make_statistics_step(models.make_forward(SMALL), lambda x: x, names)
        lowered = jax.jit(step).lower(variables["params"], variables["batch_stats"], batches()[0])
        texts.append(lowered.as_text())
    assert texts[0] == texts[1]


def test_frozen_statistics_come_back_as_they_are():
    variables = small_variables()
    moved = jax.tree.map(lambda leaf: leaf + 0.3, variables["batch_stats"])
    frozen = {"stem/bn", "stage1/block0/bn1"}
    forward = models.make_forward(SMALL, frozen_norms=frozen)
    moving = {name for name in moving_of(variables) if name.rpartition("/")[0] not in frozen}
    step = jax.jit(norm_statistics.make_statistics_step(forward, lambda images: images, moving))
    found = norm_statistics.estimate(step, variables["params"], moved, batches(1))
    np.testing.assert_array_equal(found["stem"]["bn"]["mean"], moved["stem"]["bn"]["mean"])
    # Behind frozen modules, too, the estimate is that of the batch: that of a network without averages.
    _, after = forward(variables["params"], moved, batches(1)[0]["image"], train=True)
    for name, leaf in trees.flatten(after).items():
        if name in moving:
            old = trees.flatten(moved)[name]
            of_batch = (np.asarray(leaf, np.float64) - 0.9 * np.asarray(old, np.float64)) / 0.1
            np.testing.assert_allclose(
                trees.flatten(found)[name], of_batch, rtol=2e-5, atol=2e-5, err_msg=name
            )
    assert np.any(
        found["stage1"]["block0"]["bn2"]["mean"] != moved["stage1"]["block0"]["bn2"]["mean"]
    )


def test_statistics_equal_pytorch():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import update_bn

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.bn = torch.nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.conv(x))

    variables = small_variables()
    net = Net()
    kernel = np.array(variables["params"]["stem"]["conv"]["kernel"]).transpose(3, 2, 0, 1)
    with torch.no_grad():
        net.conv.weight.copy_(torch.tensor(kernel))
    update_bn([torch.tensor(batch["image"].transpose(0, 3, 1, 2)) for batch in batches()], net)
    step = jax.jit(
        norm_statistics.make_statistics_step(
            models.make_forward(SMALL), lambda images: images, moving_of(small_variables())
        )
    )
    found = norm_statistics.estimate(
        step, variables["params"], variables["batch_stats"], batches()
    )["stem"]["bn"]
    np.testing.assert_allclose(found["mean"], net.bn.running_mean.numpy(), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found["var"], net.bn.running_var.numpy(), rtol=2e-5)
