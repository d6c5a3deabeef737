"""Fixtures of the commands' tests: what starts them, networks of one block a stage."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from running import Launcher, small_architectures

from tl_jax.models import registry


@pytest.fixture(scope="session")
def launcher(compiled_programs):
    """Returns what starts commands in processes of their own."""
    with Launcher(compiled_programs) as launcher:
        yield launcher


@pytest.fixture(autouse=True)
def no_command_left(request):
    """Ends the commands that a test has left running, whether it failed or not."""
    yield
    if "launcher" in request.fixturenames:
        request.getfixturevalue("launcher").kill_all()


@pytest.fixture(scope="module")
def small_networks():
    """Shrinks every registered network to one block a stage and a few channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", small_architectures())
        yield
