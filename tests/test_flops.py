"""Operations counted in a jaxpr, by hand and against XLA's count."""

import jax
import jax.numpy as jnp
import pytest

from tl_jax import flops, models

X, Y = jnp.ones((3, 4)), jnp.ones((4, 5))


def counted(function, *arguments):
    return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def test_products_and_elements():
    assert counted(lambda x, y: x @ y, X, Y) == 2 * 3 * 4 * 5
    assert counted(lambda x, y: jnp.sin(x @ y) + 1, X, Y) == 2 * 3 * 4 * 5 + 15 + 15
    assert counted(lambda x: (x > 0).astype(jnp.int32) + 1, X) == 0
    batched = counted(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), X[None], Y[None])
    assert batched == 2 * 3 * 4 * 5


def test_what_no_output_needs():
    @jax.jit
    def both(x, y):
        return x @ y, jnp.exp(x)

    assert counted(lambda x, y: both(x, y)[1], X, Y) == 12
    assert counted(lambda x, y: both(x, y)[0], X, Y) == 120


def test_loops_and_branches():
    def body(x, _):
        return jnp.sin(x), None

    assert counted(lambda x: jax.lax.scan(body, x, length=7)[0], X) == 7 * 12
    branches = (lambda x: x + 1, lambda x: jnp.sin(x + 1) + 1)
    assert counted(lambda i, x: jax.lax.switch(i, branches, x), jnp.int32(0), X) == 3 * 12


def test_of_a_loop_what_no_output_needs():
    """The second number is passed on for itself alone, the third is needed by the first."""

    def body(carry, _):
        x, unneeded, other = carry
        return (x + other, jnp.exp(unneeded), jnp.sin(other)), jnp.cos(unneeded)

    def loop(which):
        return lambda x: jax.tree.leaves(jax.lax.scan(body, (x, x, x), length=7))[which]

    assert [counted(loop(which), X) for which in range(4)] == [7 * 24, 7 * 12, 7 * 12, 7 * 24]


def test_one_round_of_a_while():
    def body(state):
        number, x = state
        return number + 1, jnp.sin(x)

    assert counted(lambda x: jax.lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1], X) == 12


def test_a_share_for_each_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")

    def apart(x):
        return jax.shard_map(jnp.sin, mesh=mesh, in_specs=spec, out_specs=spec)(x)

    assert counted(apart, jnp.ones(16)) == 16


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
    """Forward, and the gradients with respect to input and kernel, of which each is as dear."""
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    # Of the 4 x 3 places of the kernel along a side, the first is padding.
    forward = 2 * (2 * 6) * (4 // groups) * 11**2
    assert counted(convolve, x, kernel) == forward
    _, pullback = jax.vjp(convolve, x, kernel)
    grad = jnp.ones((2, 4, 4, 6))
    for which in (0, 1):
        assert counted(lambda grad, which=which: pullback(grad)[which], grad) == forward


@pytest.mark.parametrize("trained", ["head", "stage4", "all"])
def test_a_network_is_counted_as_xla_counts_it(trained):
    model = models.create_model("resnet18", 10, stem="cifar")
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))
    forward = models.make_forward(model)
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)

    def gradient(params, batch_stats, images):
        def loss(params):
            return jnp.square(forward(params, batch_stats, images, train=True)[0]).mean()

        grads = jax.grad(loss)(params)
        return grads if trained == "all" else grads[trained]

    arguments = shapes["params"], shapes["batch_stats"], images
    xlas = jax.jit(gradient).lower(*arguments).compile().cost_analysis()["flops"]
    assert counted(gradient, *arguments) == pytest.approx(xlas, rel=0.05)
