"""The page of an ablation: what it says, and that what it links to is there; its runs are made up."""

import html
import json
import re
import urllib.parse

import numpy as np
import pytest

from tl_jax import ablation
from tl_jax.ablation import cells, page
from tl_jax.ablation.record import Record
from tl_jax.config import identity_of, of_command
from tl_jax.runs import training
from tl_jax.runs.run_folder import RunFolder
from tl_jax.training.loops import NonFiniteLoss, Stopped

pytestmark = pytest.mark.usefixtures("small_networks")
VARIANTS = {"slow": ("optim.learning_rate=0.01",), "fast": (), "wild": ("optim.learning_rate=1e9",)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Has runs made up, with all that figures are drawn from; those of a huge learning rate diverge."""

    def run(config, folder, stop_requested=lambda: False, *, sealed=False, **_):
        record, identity = of_command(config), identity_of(config)
        if config.optim.learning_rate > 1e3:
            raise NonFiniteLoss(3, "<loss>", 0, np.arange(2))
        number = int(cells.digest(config), 16) % 97 / 97
        splits = {"validation": {"top1_accuracy": number, "examples": 100}}
        if not sealed:
            splits["test"] = {"top1_accuracy": 1 - number, "examples": 100}
        result = {
            "splits": splits,
            "wall_seconds": 1.0 + number,
            "steps": 6,
            "parameters": [{"trainable": 10 if number > 0.5 else 20, "parameters": 20}],
            "device": {"count": 4},
            "train_examples": 20,
        }
        with RunFolder.open(folder, record, identity=identity) as opened:
            opened.write_json("sealed.json" if sealed else "result.json", result)
            line = {"step": 2, "split": "train", "loss": number}
            (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            if not sealed:
                (folder / "report.html").write_text("a report")
                chosen = np.eye(2, dtype=np.float32)[[0, int(number > 0.5)]]
                np.savez(folder / "predictions.npz", probabilities=chosen, labels=[0, 1])
        return result

    monkeypatch.setattr(training, "run", run)


def text_of(workdir):
    """Returns the text of the page, without its markup."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", (workdir / page.PAGE).read_text(), flags=re.S)
    return " ".join(html.unescape(text).split())


def attributes(workdir, name):
    found = re.findall(rf'{name}="([^"]*)"', (workdir / page.PAGE).read_text())
    return [html.unescape(value) for value in found]


def test_a_page_says_what_was_asked_and_what_came_of_it(spec, tmp_path):
    made = spec(VARIANTS, shots=(2, 4), baseline="slow", test=("slow", "fast"))
    content = ablation.run(made, tmp_path)
    text = text_of(tmp_path)
    assert "3 variants, 2 numbers of labels, 2 seeds, 12 runs" in text
    assert "How does each variant differ from slow?" in text
    assert "metric top-1 accuracy seeds 0, 1 labels per class 2, 4" in text
    assert "slow optim.learning_rate=0.01 nothing fast nothing: the base as it is nothing" in text
    times = sorted({line["time"] for line in Record(tmp_path).log()})
    assert f"was opened for 8 runs ({' to '.join(times)})" in text
    assert "It was not opened for wild." in text
    assert "4 of 12 runs failed or diverged" in text and "8 finished, 4 diverged." in text
    assert "wild 2 0 diverged NonFiniteLoss:" in text
    assert "<loss>" in text and "<loss>" not in (tmp_path / page.PAGE).read_text()
    assert content["runs"][2]["error"].startswith("NonFiniteLoss")
    for row in content["runs"]:
        if row["status"] == "finished":
            shown = f"finished {100 * row['validation']:.2f}% {100 * row['test']:.2f}%"
            assert f"{row['variant']} {row['shots']} {row['seed']} {shown}" in text
    for heading in ("Test: top-1", "Validation: top-1", "Time of training", "Differences"):
        assert heading in text


def test_links_lead_to_files_and_figures_are_within_the_page(spec, tmp_path):
    ablation.run(spec(VARIANTS, shots=(2, 4)), tmp_path)
    links = [link for link in attributes(tmp_path, "href") if not link.startswith(("#", "data:"))]
    assert links and all((tmp_path / urllib.parse.unquote(link)).exists() for link in links)
    runs = [link for link in links if link.startswith("cells/")]
    assert sum(link.endswith("/report.html") for link in runs) == 8
    assert {link.split("/")[1] for link in runs if not link.endswith(".html")} <= {"wild"}
    anchors = [link[1:] for link in attributes(tmp_path, "href") if link.startswith("#")]
    assert set(anchors) <= set(attributes(tmp_path, "id")) and len(anchors) >= 6
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    figures = {name.removesuffix(".svg") for name in names if name.endswith(".svg")}
    assert figures >= {"differences", "labels", "time", "curves", "classes_2", "classes_4"}
    assert names == {f"{figure}.{kind}" for figure in figures for kind in ("png", "svg")}
    pictures, alts = attributes(tmp_path, "src"), attributes(tmp_path, "alt")
    assert len(pictures) == len(alts) == len(figures)
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    assert any("fast against slow (4 per class): " in alt for alt in alts)
    assert (tmp_path / "figures/time.svg").read_text().startswith("<?xml")


def test_a_row_links_to_the_folder_of_its_own_run(spec, tmp_path):
    ablation.run(spec(VARIANTS, shots=(2, 4)), tmp_path)
    rows = re.findall(r"<tr>.*?</tr>", (tmp_path / page.PAGE).read_text(), flags=re.S)
    linked = [row for row in rows if 'href="cells/' in row]
    assert len(linked) == 8
    for row in linked:
        [(variant, shots, seed)] = re.findall(r'href="cells/(\w+)/shots(\d)/trial0/seed(\d)-', row)
        text = re.sub(r"<[^>]+>", " ", row).split()
        assert text[:3] == [variant, shots, seed]


def test_changes_of_the_spec_and_readings_outside_are_shown(spec, tmp_path):
    first = spec(seeds=(0,))
    ablation.run(first, tmp_path)
    longer = spec(seeds=(0, 1))
    with pytest.raises(Stopped):
        ablation.run(longer, tmp_path, lambda: True, amend="a second seed & more")
    cell = next(cell for cell in cells.expand(longer) if cell.seed == 1)
    training.run(cell.config, Record(tmp_path).cell(cell))
    ablation.run(longer, tmp_path)
    text = text_of(tmp_path)
    assert "The spec was changed after that: " in text and ": a second seed & more" in text
    assert f"Another command read it for: {cell.name}" in text
    assert "the test split of 1 run was read by another command" in text
    assert "was opened for 3 runs (" in text


def test_tuning_and_the_question_which_is_best(spec, tmp_path):
    ablation.run(spec(tune={"optim.momentum": (0.0, 0.9)}, question="best"), tmp_path)
    text = text_of(tmp_path)
    assert "Which variant is best?" in text and "(Holm)" in text
    assert "optim.momentum: 0.0, 0.9 (2 trials of each seed)" in text
    assert "fast 2 optim.momentum=0.9 1 finished" in text


def test_a_figure_of_an_earlier_spec_is_removed(spec, tmp_path):
    ablation.run(spec(shots=(2, 4)), tmp_path)
    kept = tmp_path / "figures" / "mine.pdf"
    kept.write_text("")
    assert (tmp_path / "figures" / "labels.svg").exists()
    ablation.run(spec(shots=(2,)), tmp_path, amend="less")
    assert not (tmp_path / "figures" / "labels.svg").exists() and kept.exists()


def test_a_look_at_validation_draws_nothing(spec, tmp_path):
    with pytest.raises(Stopped):
        ablation.run(spec(), tmp_path, lambda: True)
    ablation.run(spec(), tmp_path, peek=True)
    assert not (tmp_path / page.PAGE).exists() and not (tmp_path / page.FIGURES).exists()


def test_no_run_that_ended_well(spec, tmp_path):
    ablation.run(spec({"wild": ("optim.learning_rate=1e9",)}, seeds=(0,)), tmp_path)
    assert "was opened for no run" in text_of(tmp_path)
    assert not (tmp_path / page.FIGURES).exists() and "Figures" not in text_of(tmp_path)


def test_a_run_without_a_folder_has_no_link(tmp_path):
    (tmp_path / "cells" / "a b").mkdir(parents=True)
    assert page.link(tmp_path, "cells/a b") == "cells/a%20b"
    assert page.link(tmp_path, "cells/none") is None
