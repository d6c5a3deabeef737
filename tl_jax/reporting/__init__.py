"""What people see of a run: metric files, progress, tables, plots and the HTML report."""

from tl_jax.reporting.comparison import write_comparison
from tl_jax.reporting.progress import Progress
from tl_jax.reporting.report import write_report
from tl_jax.reporting.tables import format_markdown, print_table
from tl_jax.reporting.writers import MetricWriter, read_metrics

__all__ = [
    "MetricWriter",
    "Progress",
    "format_markdown",
    "print_table",
    "read_metrics",
    "write_comparison",
    "write_report",
]
