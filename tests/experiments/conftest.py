"""Fixtures of the commands' tests: programs compiled once for all, networks of one block a stage."""

import os
import pathlib
import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from running import Launcher, small_architectures

from tl_jax.models import registry


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory) -> pathlib.Path:
    """Returns the folder of compiled programs that all processes of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"
    folder.mkdir(exist_ok=True)
    return folder


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
def small_networks(compiled_programs):
    """Shrinks every registered network to one block a stage and a few channels; compiles once."""
    options = {
        "jax_compilation_cache_dir": str(compiled_programs),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", small_architectures())
        for name, value in options.items():
            jax.config.update(name, value)
        jax_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()
