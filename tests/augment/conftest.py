"""PyTorch's transforms, also where torchvision has no compiled operators for this CPU; helpers beside the tests."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="session")
def transforms():
    """Returns `torchvision.transforms`; skips where it is not installed."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "porting"))
    try:
        import torch_reference

        torch_reference.torchvision_models()
        import torchvision.transforms.functional
    except ImportError:
        pytest.skip("torchvision is not installed")
    finally:
        sys.path.pop(0)
    return torchvision.transforms
