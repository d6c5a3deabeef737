"""What people see of a run: metric files, progress, tables, plots and the HTML report."""

import importlib
from typing import TYPE_CHECKING, Any

from tl_jax.reporting.progress import Progress
from tl_jax.reporting.run_files import SCATTER_FILE
from tl_jax.reporting.run_table import RunTable
from tl_jax.reporting.tables import format_markdown, print_table
from tl_jax.reporting.writers import MetricWriter, read_metrics

if TYPE_CHECKING:
    from tl_jax.reporting.cross_validation import write_cross_validation
    from tl_jax.reporting.inspection import write_inspection
    from tl_jax.reporting.probe import write_probe
    from tl_jax.reporting.report import write_report
    from tl_jax.reporting.routes import write_routes
    from tl_jax.reporting.run_comparison import write_run_comparison
    from tl_jax.reporting.sweep import write_sweep

__all__ = [
    "SCATTER_FILE",
    "MetricWriter",
    "Progress",
    "RunTable",
    "format_markdown",
    "print_table",
    "read_metrics",
    "write_cross_validation",
    "write_inspection",
    "write_probe",
    "write_report",
    "write_routes",
    "write_run_comparison",
    "write_sweep",
]

# Imported when first asked for, at the end of a run: matplotlib would hold up its start by half a second.
_LATE = {
    "write_cross_validation": "cross_validation",
    "write_inspection": "inspection",
    "write_probe": "probe",
    "write_report": "report",
    "write_routes": "routes",
    "write_run_comparison": "run_comparison",
    "write_sweep": "sweep",
}


def __getattr__(name: str) -> Any:
    """Returns a function whose module is imported late."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
