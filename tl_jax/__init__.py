"""Transfer learning on images with JAX: port, freeze, fine-tune, defend every number.

Names of the public API, and the parts of the library such as `tl_jax.models`, are imported when first used, so
that `import tl_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ml_collections import ConfigDict as Config

    from tl_jax.ablation import ablate
    from tl_jax.config import default_config
    from tl_jax.config import load as load_config
    from tl_jax.runs.api import evaluate, extend_data, finetune, preview_augment
    from tl_jax.runs.compare_runs import compare_runs
    from tl_jax.runs.finished import Run, load_run

_HOMES = {
    "Config": ("ml_collections", "ConfigDict"),
    "ablate": ("tl_jax.ablation", "ablate"),
    "default_config": ("tl_jax.config", "default_config"),
    "load_config": ("tl_jax.config", "load"),
    "finetune": ("tl_jax.runs.api", "finetune"),
    "evaluate": ("tl_jax.runs.api", "evaluate"),
    "extend_data": ("tl_jax.runs.api", "extend_data"),
    "preview_augment": ("tl_jax.runs.api", "preview_augment"),
    "compare_runs": ("tl_jax.runs.compare_runs", "compare_runs"),
    "Run": ("tl_jax.runs.finished", "Run"),
    "load_run": ("tl_jax.runs.finished", "load_run"),
}
__all__ = [
    "Config",
    "Run",
    "ablate",
    "compare_runs",
    "default_config",
    "evaluate",
    "extend_data",
    "finetune",
    "load_config",
    "load_run",
    "preview_augment",
]


def _parts() -> set[str]:
    """Returns the names of the modules and packages below this one."""
    import pkgutil

    return {module.name for module in pkgutil.iter_modules(__path__)}


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_parts()})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _parts():
        return importlib.import_module(f"tl_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
