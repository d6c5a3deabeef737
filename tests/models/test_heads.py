"""Which heads are one dense layer of pooled features."""

import pytest
from flax import linen as nn

from tl_jax import models
from tl_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "boundary", "count"),
    [
        ("resnet18", "pool", 512),
        ("resnet50", "pool", 2048),
        ("resnet20_cifar", "pool", 64),
        ("vgg11_bn", "hidden", 4096),
        ("small_cnn", "hidden", None),
    ],
)
def test_registered_networks_have_one(name, boundary, count):
    model = models.create_model(name, 3)
    found = models.dense_head(model, 32)
    assert found[0] == boundary
    assert count is None or found[1] == count


def test_in_bfloat16_too():
    model = models.create_model("resnet20_cifar", 3, dtype="bfloat16")
    assert models.dense_head(model, 32) == ("pool", 64)


class Headed(nn.Module):
    """A convolution and a head of a kind."""

    num_classes: int
    kind: str

    boundaries = ("first", "pool", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        """Returns the features after `stop`."""
        begin, end = models.segment(self, start, stop)
        for part in self.boundaries[begin:end]:
            if part == "first":
                x = nn.Conv(4, (3, 3), name="first")(x)
            elif part == "pool":
                x = x if self.kind == "map" else x.mean((1, 2))
            elif self.kind == "layers":
                x = _Two(self.num_classes, name="head")(x)
            else:
                x = x.mean((1, 2)) if self.kind == "map" else x
                x = nn.relu(x) if self.kind == "relu" else x
                bias = self.kind != "no bias"
                x = nn.Dense(self.num_classes, use_bias=bias, name="head")(x)
                x = 2 * x if self.kind == "doubled" else x
        return x


class _Two(nn.Module):
    """Two dense layers."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        """Returns logits."""
        return nn.Dense(self.num_classes)(nn.Dense(4)(x))


@pytest.mark.parametrize("kind", ["dense", "no bias"])
def test_own_networks_may(kind):
    assert models.dense_head(Headed(3, kind), 8) == ("pool", 4)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("relu", "it computes something else with them"),
        ("doubled", "it computes something else with them"),
        ("map", r"on features \['B', 8, 8, 4\] after 'pool'"),
        ("layers", "Dense_0/kernel"),
    ],
)
def test_other_heads_are_refused(kind, said):
    with pytest.raises(InputError, match=f"the head of Headed has .*{said}") as raised:
        models.dense_head(Headed(3, kind), 8)
    assert "expected one dense layer, kernel [F, K] and bias [K]" in str(raised.value)


def test_objective_is_no_name_for_a_boundary():
    class Named(Headed):
        boundaries = ("objective", "head")

    with pytest.raises(InputError, match="expected another name than 'objective'"):
        models.check_module(Named(3, "dense"))
