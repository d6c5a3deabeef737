"""Deliberate bugs, planted one at a time to see which of them the tests notice.

    python -m tests.mutants                       all of them
    python -m tests.mutants --only 'optim-*'      some, by name
    python -m tests.mutants --jobs 2              so many at a time

The list is `catalogue.py`. Tools that make such bugs by themselves (mutmut, cosmic-ray) change operators and
constants everywhere and run the whole suite for each: tens of thousands of runs here, most of them of bugs that
nobody makes. What goes wrong where a config meets the library is a value that is not passed on, a split taken for
another, a seed that is shared; those are written down here, each with the tests that should notice it, so that all
of them take minutes.
"""
