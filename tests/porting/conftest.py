"""Makes the helpers of this folder importable by the names under which its scripts import them."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def require():
    """Returns a function that skips the test where one of the named packages is not installed.

    `pytest.importorskip` imports, which torchvision only bears after `torchvision_models()`.
    """

    def check(*packages):
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")

    return check
