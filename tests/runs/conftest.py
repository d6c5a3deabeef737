"""Networks of one block a stage, as for the commands' tests; run folders written by hand."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "experiments"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

from running import small_architectures

from tl_jax.models import registry


@pytest.fixture(scope="module")
def small_networks():
    """Shrinks every registered network to one block a stage and a few channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", small_architectures())
        yield
