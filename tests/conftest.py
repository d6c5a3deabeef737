"""Eight simulated devices on the CPU, programs compiled once for all tests, the real data where available."""

import os
import pathlib

# Before jax is imported: forced host devices on few cores run out of threads otherwise (jaxlib 0.10,
# "Expected 8 threads to join the rendezvous").
os.environ["NPROC"] = "16"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

# Files of a minute and more, which together take half of the time: `-m "not long"` leaves them out.
_LONG = frozenset(
    {
        "ablation/test_planner.py",
        "augment/test_augmentation.py",
        "benchmarks/test_accelerator_stages.py",
        "experiments/test_configs.py",
        "experiments/test_extending.py",
        "experiments/test_recipes.py",
        "experiments/test_runs.py",
        "experiments/test_several_processes.py",
        "models/test_batch_norm.py",
        "models/test_rematerialisation.py",
        "runs/test_attention.py",
        "runs/test_augmentation.py",
        "runs/test_contracts_together.py",
        "runs/test_numerics.py",
        "runs/test_objectives.py",
        "runs/test_own_model.py",
        "runs/test_phases.py",
        "runs/test_relationship.py",
        "runs/test_solved.py",
        "runs/test_souped.py",
        "runs/test_source_head.py",
        "runs/test_together.py",
        "runs/test_uneven.py",
        "runs/test_vgg.py",
    }
)
_HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Marks the tests of long files."""
    for item in items:
        if item.path.relative_to(_HERE).as_posix() in _LONG:
            item.add_marker("long")


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory) -> pathlib.Path:
    """Returns the folder of compiled programs that all processes of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once(compiled_programs):
    """Keeps the programs that took a while to compile: many tests make the same ones."""
    jax.config.update("jax_compilation_cache_dir", str(compiled_programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Returns the folder named by TL_JAX_DATA, which holds `tfds/cifar10`; skips where unset."""
    folder = os.environ.get("TL_JAX_DATA")
    if not folder:
        pytest.skip("TL_JAX_DATA is not set: no real data here")
    return pathlib.Path(folder)
