"""The figures of README.md and docs/: each comes from a JSON file under results/, and no other number stands there.

    python -m benchmarks.figures            writes the figures again
    python -m benchmarks.figures --check    exits with code 1 where one is stale, or a number has no origin

In Markdown three comments mark where a figure comes from; `<!-- end -->` ends each:

    <!-- figure: cpu-jax0.10/flops.json none_ratio .2f -->3.00<!-- end -->  FILE KEY... FORMAT of Python
    <!-- table: throughput -->                                              of figure_tables or figure_timings
    <!-- source: Kumar et al. 2022, Table 1 -->91.8%<!-- end -->            somebody else's number; not changed

Every other number outside of code is refused, unless it is of a kind that is no measurement: `KINDS`.
"""

import argparse
import json
import pathlib
import re
import sys

# The others register their tables.
from benchmarks import (
    figure_ablations,  # noqa: F401
    figure_advice,  # noqa: F401
    figure_cells,
    figure_strategies,  # noqa: F401
    figure_tables,  # noqa: F401
    figure_timings,  # noqa: F401
)

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# Of the table of fields, by its own command.
GENERATED = ("config.md",)
PAGES = ("README.md", "docs/*.md", "tl_jax/weights/*.md")

_MARKED = re.compile(r"<!-- (figure|table|source): (.+?) -->(.*?)<!-- end -->", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:(?:figure|table|source):|end -->)")
_SKIPPED = (
    _MARKED,
    re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE),
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"(?<=\])\([^)]*\)"),  # where a link points
    # Code is what is typed or stored; a percentage or a quantity in backticks is a figure all the same.
    re.compile(r"`(?![\d., ]+ ?(?:%|x|s|ms|[KMG]i?B|images/s)`)[^`]*`"),
)
_COUNTED = (
    "epochs?|updates?|steps?|seeds?|class(?:es)?|labels?|images? per class|devices?|process(?:es)?|cores?|members?|"
    "learning rates?|weight decays?|views?|networks?|blocks?|stages?"
)
# Numbers that are no measurements.
KINDS = {
    "name": re.compile(r"(?<![\w.])[A-Za-z]\w*(?:-\w+)*-?\d[\w-]*(?:\.\d+)*(?: to \d+(?![\d.%]))?"),
    "version": re.compile(
        r"(?:Python|JAX|jaxlib|Flax|PyTorch|torchvision|timm|transformers|Keras|glibc|version) "
        r"\d+(?:\.\d+)*(?:(?:,| to| and| or) \d+\.\d+(?:\.\d+)*)*",
        re.IGNORECASE,
    ),
    "year": re.compile(r"(?:\(|et al\.,?\s+)(?:19|20)\d\d\b"),
    "place in a paper": re.compile(r"(?:section|table|figure) \d+(?:\.\d+)*", re.IGNORECASE),
    "name of a stage": re.compile(r"\bstages? \d\b"),
    "item of a list": re.compile(r"^\s*\d+\. ", re.MULTILINE),
    "size of an image": re.compile(r"(?<![\w.])\d+(?: px|-pixel| pixels?| x \d+)\b"),
    "size of a kernel": re.compile(r"(?<![\w.])\dx\d(?![\w.])"),
    "count that was set": re.compile(rf"(?<![\w.,])\d[\d,]* (?:{_COUNTED})\b"),
    "batch size": re.compile(r"batch(?:es)?(?: size)?(?: of)? \d[\d,]*(?![\d.%])"),
    "tolerance of a test": re.compile(r"within \d(?:\.\d+)?e-\d+"),
    "exit code": re.compile(r"exit codes? \d+", re.IGNORECASE),
    "range of pixels": re.compile(r"\[0, (?:1|255)\]"),
    "level of an interval": re.compile(r"95% (?:t-)?intervals?"),
}


class FigureError(ValueError):
    """A page asks for a figure that is not there; the message names the page's marker."""


def main() -> None:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    problems = []
    try:
        for page in pages(REPOSITORY):
            text = page.read_text(encoding="utf-8")
            fresh = render(text, REPOSITORY / "results")
            name = page.relative_to(REPOSITORY).as_posix()
            if fresh != text and args.check:
                problems += [f"{name}: {line}" for line in changed(text, fresh)]
            elif fresh != text:
                page.write_text(fresh, encoding="utf-8")
                print(f"{name}: written")
            problems += [f"{name}:{line}" for line in numbers_without_origin(fresh)]
    except FigureError as error:
        sys.exit(f"{page.relative_to(REPOSITORY)}: {error}")
    if problems:
        sys.exit("\n".join([*problems, f"{len(problems)} figures are stale or have no origin"]))
    print("every figure comes from results/")


def pages(repository: pathlib.Path) -> list[pathlib.Path]:
    """Returns the pages whose figures are generated."""
    found = (page for pattern in PAGES for page in repository.glob(pattern))
    return sorted(page for page in found if page.name not in GENERATED)


def render(text: str, results: pathlib.Path) -> str:
    """Returns a page with its figures as `results` has them now.

    Raises:
        FigureError: if a marker names a file, key, format or table that does not exist, or is not ended.
    """

    def replace(match: re.Match[str]) -> str:
        kind, argument, content = match.groups()
        if kind == "figure":
            content = look_up(argument, results)
        elif kind == "table":
            content = f"\n{make_table(argument, results)}\n"
        return f"<!-- {kind}: {argument} -->{content}<!-- end -->"

    left = _MARKED.sub("", text)
    if _MARKER.search(left):
        raise FigureError(f"not begun or not ended: {left[_MARKER.search(left).start() :][:60]!r}")
    return _MARKED.sub(replace, text)


def look_up(argument: str, results: pathlib.Path) -> str:
    """Returns one number of a JSON file, formatted: `FILE KEY... FORMAT`; lists are indexed by number.

    Raises:
        FigureError: if there is no such file, key or format.
    """
    name, *keys, form = argument.split()
    try:
        value = json.loads((results / name).read_text(encoding="utf-8"))
        for key in keys:
            value = value[int(key) if isinstance(value, list) else key]
        return format(value, "" if form == "s" else form)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise FigureError(f"figure: {argument}: {type(error).__name__} {error}") from error


def make_table(name: str, results: pathlib.Path) -> str:
    """Returns the Markdown of a table.

    Raises:
        FigureError: if there is no such table, or its JSON lacks what the table shows.
    """
    tables = figure_cells.TABLES
    if name not in tables:
        raise FigureError(f"table: {name}: known are {', '.join(sorted(tables))}")
    try:
        return tables[name](results)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FigureError(f"table: {name}: {type(error).__name__} {error}") from error


def changed(text: str, fresh: str) -> list[str]:
    """Returns a line for each marked figure that differs between two texts of a page."""
    pairs = zip(_MARKED.finditer(text), _MARKED.finditer(fresh), strict=True)
    return [
        f"{before[1]}: {before[2]} is stale; run python -m benchmarks.figures"
        for before, after in pairs
        if before[0] != after[0]
    ]


def numbers_without_origin(text: str) -> list[str]:
    """Returns "LINE: number in its surroundings" for each number that is no figure and of no kind.

    Example:
        >>> numbers_without_origin("ResNet-20 reaches 67.6% after 10 epochs.")
        ["1: '67.6' in 'ResNet-20 reaches 67.6% after 10 epochs.'"]
    """
    left = text
    for pattern in (*_SKIPPED, *KINDS.values()):
        left = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), left)
    lines = text.splitlines()
    return [
        f"{number}: {match[0]!r} in {lines[number - 1].strip()[:118]!r}"
        for number, line in enumerate(left.splitlines(), start=1)
        for match in re.finditer(r"\d[\d,.]*(?:e-?\d+)?(?<![,.])", line)
    ]


if __name__ == "__main__":
    main()
