import csv
import io
import math

import pytest

from tl_jax import console
from tl_jax.reporting import format_markdown, print_table, tables

ROWS = [
    {"group": "stem", "parameters": 9408, "state": "frozen", "lr_multiplier": 0.25},
    {"group": "[bold]head|", "parameters": 20490, "note": None},
]


def test_print_table_shows_every_cell_on_its_row():
    stream = io.StringIO()
    print_table("Freezing [x]", ROWS, level="normal", stream=stream)
    title, _, header, _, stem, head, *_ = stream.getvalue().splitlines()
    assert title.strip() == "Freezing [x]"
    assert header.split("  ")[0].strip() == "group"
    assert [cell for cell in stem.split()] == ["stem", "9,408", "frozen", "0.25"]
    assert [cell for cell in head.split()] == ["[bold]head|", "20,490"]
    # Numbers end where their heading ends.
    assert stem.index("9,408") + 5 == head.index("20,490") + 6 == header.index("parameters") + 10


def test_wide_tables_are_not_cut_without_a_terminal():
    stream = io.StringIO()
    row = {f"column_{place}": "x" * 20 for place in range(10)}
    print_table("wide", [row], level="normal", stream=stream)
    assert stream.getvalue().count("x" * 20) == 10
    assert "…" not in stream.getvalue()


def test_markdown():
    assert format_markdown(ROWS).splitlines() == [
        "| group | parameters | state | lr multiplier | note |",
        "|---|---:|---|---:|---|",
        "| stem | 9,408 | frozen | 0.25 |  |",
        "| [bold]head\\| | 20,490 |  |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (45000, "45,000"),
        (0.123456, "0.1235"),
        (1234567.8, "1,234,568"),
        (math.nan, "nan"),
        ([1, 0.5], "1, 0.5"),
        ("a", "a"),
    ],
)
def test_cells(value, text):
    assert tables.format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.34, "12.3 s"),
        (75.3, "1:15 min"),
        (754, "12:34 min"),
        (4000, "1:06:40 h"),
        (90000, "1 day, 1:00:00 h"),
    ],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(("value", "number"), [("inf", math.inf), (2, 2.0), (0.5, 0.5)])
def test_numbers(value, number):
    assert tables.number(value) == number


@pytest.mark.parametrize("value", [None, "nan", "cat", [1]])
def test_what_is_no_number_is_nan(value):
    assert math.isnan(tables.number(value))


def test_tables_are_printed_for_those_who_ask(capsys):
    for level, count in [("silent", 0), ("normal", 1), ("verbose", 2)]:
        with console.verbosity(level):
            print_table("asked for", ROWS, level="normal")
            print_table("more", ROWS)
            console.say("a line")
        said = capsys.readouterr().out
        assert said.count("stem") == count and said.count("a line") == (level != "silent")


def test_latex():
    rows = [{"variant": "a_b & 5%", "n": 1234}, {"variant": "x^2 {~} \\\\ #$", "n": None}]
    assert tables.format_latex(rows).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"variant & n \\",
        r"\midrule",
        r"a\_b \& 5\% & 1,234 \\",
        r"x\textasciicircum{}2 \{\textasciitilde{}\} \textbackslash{}\textbackslash{} \#\$ &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv():
    read = list(csv.reader(io.StringIO(tables.format_csv(ROWS))))
    assert read == [
        ["group", "parameters", "state", "lr_multiplier", "note"],
        ["stem", "9408", "frozen", "0.25", ""],
        ["[bold]head|", "20490", "", "", ""],
    ]
