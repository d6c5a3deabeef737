"""Advice before a run: whether transfer pays on a data set, how deep to freeze, what to try first, what it costs."""

from tl_jax.advice.evidence import Evidence, Judged, gather
from tl_jax.advice.findings import Finding, load_findings
from tl_jax.advice.report import advise
from tl_jax.advice.sentences import Sentence, say

__all__ = ["Evidence", "Finding", "Judged", "Sentence", "advise", "gather", "load_findings", "say"]
