"""A tiny base run, a spec of it, and a file of a spec."""

import pathlib
import sys
import textwrap

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "experiments"))

from running import small_architectures, tiny_config

from tl_jax.ablation import Spec
from tl_jax.models import registry

EXPERIMENTS = pathlib.Path(__file__).parent.parent / "experiments"


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


@pytest.fixture
def path(tmp_path):
    """Returns the file of a spec of six runs of a small network."""
    path = tmp_path / "spec.py"
    path.write_text(
        textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(EXPERIMENTS)!r})
            from running import tiny_config
            from tl_jax.ablation import Spec

            def get_spec():
                base = tiny_config(
                    model__name="small_cnn", data__image_size=8, data__validation_fraction=0.2, train__steps=20
                )
                slow = ("optim.learning_rate=0.001",)
                return Spec(base, {{"slow": slow, "fast": ()}}, (0, 1, 2))
        """)
    )
    return path
