"""Eight simulated devices on the CPU, and the real data where it is at hand."""

import os
import pathlib

# Before jax is imported: forced host devices on few cores run out of threads otherwise (jaxlib 0.10,
# "Expected 8 threads to join the rendezvous").
os.environ["NPROC"] = "16"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import pytest


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Returns the folder named by TL_JAX_DATA, which holds `tfds/cifar10`; skips where unset."""
    folder = os.environ.get("TL_JAX_DATA")
    if not folder:
        pytest.skip("TL_JAX_DATA is not set: no real data here")
    return pathlib.Path(folder)
