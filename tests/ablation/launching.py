"""What launchers leave in the folder of an ablation."""

CELLS = "cells/*/*/*/*/"


def tables(workdir):
    return (workdir / "ablation.md").read_text().partition("## Time")[0]


def outputs(workdir):
    return {log.name.partition("_")[0]: log.read_text() for log in workdir.glob("jobs/*.err")}
