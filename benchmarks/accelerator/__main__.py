"""The command `python -m benchmarks.accelerator`; see the package."""

import argparse
import math
import pathlib
import signal
import sys

from benchmarks import accelerator, record
from benchmarks.accelerator import parent, stages


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every stage asked for has its file, whatever its rows say."""
    parser = _parser()
    args = parser.parse_args(arguments)
    changed = record.changed_files()
    if changed and not args.allow_dirty:
        parser.error(
            f"the tree is not clean ({', '.join(changed[:5])}), so that no revision would say what was "
            "measured; commit first, or pass --allow_dirty"
        )
    number = {str(place): name for place, name in enumerate(stages.NAMES, start=1)}
    names = stages.NAMES if args.stage == "all" else (number.get(args.stage, args.stage),)
    if names[0] not in stages.NAMES:
        parser.error(
            f"--stage={args.stage}: expected all, 1 to 5, or one of {', '.join(number.values())}"
        )
    _check(parser, args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    settings = stages.Settings(
        size=args.size,
        only=args.only,
        data=args.data,
        data_dir=args.data_dir,
        weights=args.weights,
        epochs=args.epochs,
        target=args.target,
    )
    parent.run(names, settings, args.out, args.budget, repeat=args.repeat)
    return 0


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command, with exit code 2, where a number or a path cannot be used."""
    if not 0 <= args.budget < math.inf:
        parser.error(f"--budget={args.budget}: expected seconds, from 0, such as 540")
    if args.epochs < 0:
        parser.error(f"--epochs={args.epochs}: expected a number from 1, or 0 for 20")
    if not 0 <= args.target < 1:
        parser.error(f"--target={args.target}: expected an accuracy from 0 to 1, such as 0.94")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out={args.out}: this is a file; expected a folder, there or not")
    kind, _, path = args.data.partition(":")
    if kind in ("folder", "npz", "csv") and not (
        pathlib.Path(path).exists() or pathlib.Path(args.data_dir, path).exists()
    ):
        parser.error(f"--data={args.data}: there is no {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=accelerator.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", default="all", help="all, a number, or a name")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of this call")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the JSON files")
    parser.add_argument("--only", choices=("", "jax"), default="", help="jax: without PyTorch")
    parser.add_argument("--size", choices=stages.SIZES, default="full")
    parser.add_argument("--data", default="", help="a name as `data.name` takes it; stages 4 and 5")
    parser.add_argument("--data_dir", default="", help="as `data.data_dir`")
    parser.add_argument("--weights", default="", help="as `init.weights`; stage 5")
    parser.add_argument("--epochs", type=int, default=0, help="of stage 5; 0: 20")
    parser.add_argument("--target", type=float, default=0.0, help="accuracy; 0: what both reach")
    parser.add_argument("--repeat", action="store_true", help="rows that were measured, too")
    parser.add_argument("--allow_dirty", action="store_true", help="with files changed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
