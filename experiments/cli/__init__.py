"""What every command shares: flags, exit codes, several processes, the compilation cache.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped on request with a checkpoint saved; 1
anything else.
"""

from experiments.cli.ablations import ABLATION_FLAGS, ablate, define_ablation_flags
from experiments.cli.arguments import (
    changes,
    config,
    define_out_flag,
    define_protocol_flag,
    define_run_flags,
    define_spec_flags,
    define_strategy_flag,
    out,
    spec,
    workdir,
)
from experiments.cli.command import run
from experiments.cli.runtime import stop_requested

__all__ = [
    "ABLATION_FLAGS",
    "ablate",
    "changes",
    "config",
    "define_ablation_flags",
    "define_out_flag",
    "define_protocol_flag",
    "define_run_flags",
    "define_spec_flags",
    "define_strategy_flag",
    "out",
    "run",
    "spec",
    "stop_requested",
    "workdir",
]
