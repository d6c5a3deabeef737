"""VGG: shapes, pooling against PyTorch's rule, dropout, and where it is entered and left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import models, trees
from tl_jax.errors import InputError

SMALL = models.VGG((1, 2), 5, batch_norm=True, width=4, hidden_width=6, dropout=0.5)
IMAGES = jax.random.normal(jax.random.key(1), (2, 9, 14, 3))


@pytest.mark.parametrize(
    ("boundary", "shape"),
    [
        ("stage1", (2, 4, 7, 4)),
        ("stage2", (2, 2, 3, 8)),
        ("pool", (2, 7 * 7 * 8)),
        ("hidden", (2, 6)),
        ("head", (2, 5)),
    ],
)
def test_shapes(boundary, shape):
    variables = models.init_variables(SMALL, jax.random.key(0))
    features = SMALL.apply(variables, IMAGES, train=False, stop=boundary)
    assert features.shape == shape and features.shape[-1] == SMALL.features(boundary)


def test_widths_double_up_to_eight_times():
    model = models.create_model("vgg16", 5)
    widths = [model.features(f"stage{number}") for number in range(1, 6)]
    assert widths == [64, 128, 256, 512, 512]


def test_pooled_has_one_dense_layer():
    model = models.create_model("vgg11", 5, classifier="pooled")
    assert model.boundaries == ("stage1", "stage2", "stage3", "stage4", "stage5", "pool", "head")
    assert model.dropout == 0.0 and models.create_model("vgg11", 5).dropout == 0.5
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))
    assert shapes["params"]["head"]["kernel"].shape == (512, 5)
    assert shapes["batch_stats"] == {}


def test_initialisation_is_torchvisions():
    """Kernels of standard deviation sqrt(2 / fan-out) and 0.01; biases 0."""
    model = models.VGG((1, 1), 50, width=64, hidden_width=40)
    params = trees.flatten(models.init_variables(model, jax.random.key(0))["params"])
    for name, leaf in params.items():
        if name.endswith("bias"):
            assert not leaf.any(), name
        else:
            expected = (2 / (9 * leaf.shape[-1])) ** 0.5 if "conv" in name else 0.01
            # Four standard errors of a standard deviation.
            assert leaf.std() == pytest.approx(expected, rel=4 / (2 * leaf.size) ** 0.5), name


@pytest.mark.parametrize(
    ("model", "start", "kept"),
    [
        (SMALL, "pool", None),
        (models.VGG((1,), 5, classifier="pooled", dropout=0.5, width=400), "pool", 400),
    ],
)
def test_dropout_in_training_alone(model, start, kept):
    variables = models.init_variables(model, jax.random.key(0))
    forward = models.make_forward(model, start=start)
    inputs = jnp.ones((2, model.features("pool")))

    def outputs(key, train=True):
        return forward(variables["params"], variables["batch_stats"], inputs, train=train, key=key)[
            0
        ]

    first, again, other = (outputs(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    still = outputs(None, train=False)
    assert (still != first).any()
    np.testing.assert_array_equal(still[0], still[1])
    if kept:
        # Twice as large where kept, half of them dropped: equal in the mean over many draws.
        mean = np.mean([outputs(jax.random.key(seed)) for seed in range(300)], (0, 1))
        np.testing.assert_allclose(mean, still[0], atol=0.05)


@pytest.mark.parametrize("remat", ["dots", "blocks"])
def test_what_is_computed_again_changes_no_gradient(remat):
    variables = models.init_variables(SMALL, jax.random.key(0))

    def grads(model):
        def loss(params):
            outputs, _ = models.make_forward(model)(
                params, variables["batch_stats"], IMAGES, train=True, key=jax.random.key(2)
            )
            return jnp.square(outputs).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9),
        grads(SMALL),
        grads(SMALL.clone(remat=remat)),
    )


def test_wrong_inputs():
    variables = models.init_variables(SMALL, jax.random.key(0))
    with pytest.raises(
        InputError, match=r"features after 'pool' have shape .* expected \[B, 392\]"
    ):
        SMALL.apply(variables, IMAGES, start="pool")
    with pytest.raises(InputError, match=r"stage2 is given a map of 1x1 pixels.* 4 pixels or more"):
        SMALL.apply(variables, IMAGES[:, :3, :3])


def test_the_contract_is_met():
    for model in (SMALL, models.create_model("vgg11", 5, classifier="pooled")):
        models.check_network(model, 5, 32)
    models.check_network(models.ResNet((1, 1), "basic", 5, "cifar", width=4), 5, 16)
