"""Makes the helpers of this folder importable by the names under which its scripts import them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
