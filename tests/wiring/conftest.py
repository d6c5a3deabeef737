"""Makes the helpers beside the tests importable, and shrinks the networks."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "experiments"))

from running import small_architectures

from tl_jax.models import registry


@pytest.fixture(scope="module")
def small_networks():
    """Shrinks every registered network to two stages of one block and a few channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", small_architectures(stages=2))
        yield
