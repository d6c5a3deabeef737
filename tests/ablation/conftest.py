"""A tiny base run, and a spec of it."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "experiments"))

from running import small_architectures, tiny_config

from tl_jax.ablation import Spec
from tl_jax.models import registry


@pytest.fixture(scope="module")
def small_networks():
    """Shrinks every registered network to one block a stage and a few channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", small_architectures())
        yield


@pytest.fixture
def spec():
    """Returns what makes a spec of tiny runs: two variants, two seeds; arguments replace these."""

    def make(variants=None, seeds=(0, 1), fields=None, **arguments):
        base = tiny_config(data__validation_fraction=0.2, **(fields or {}))
        variants = variants or {"slow": ("optim.learning_rate=0.01",), "fast": ()}
        return Spec(base, variants, seeds, **arguments)

    return make
