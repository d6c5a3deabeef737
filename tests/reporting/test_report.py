import html.parser
import json
import math

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.reporting import analysis, plots, write_report

# Two classes, five examples: right, wrong (0.9), right, wrong (0.6), right.
LABELS = [0, 1, 1, 0, 1]
PROBABILITIES = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]]
HOSTILE = '<script>alert("x")</script>'
RESULT = {
    "status": "finished",
    "splits": {
        "validation": {"loss": 0.5, "top1_accuracy": 0.75, "top5_accuracy": 1.0, "examples": 4},
        "test": {"loss": 0.625, "top1_accuracy": 0.6, "top5_accuracy": 1.0, "examples": 5},
    },
    "selection": "step 20 of 20, the best on 4 held-out images",
    "steps": 20,
    "wall_seconds": 75.0,
    "images_per_second": 1234.5,
    "device": {"platform": "cpu", "kind": "cpu", "count": 2},
    "versions": {"jax": "0.10.2", "grain": None},
    "git_revision": "0123456789abcdef",
    "frozen": {"frozen_leaves": 3, "frozen_statistics": 2, "changed": []},
    "class_names": ["alpha", "beta"],
}
FREEZING = [
    {"group": "stem", "parameters": 9408, "trainable": 0, "state": "frozen", "lr_multiplier": "-"},
    {
        "group": "head",
        "parameters": 20490,
        "trainable": 20490,
        "state": "trainable",
        "lr_multiplier": 1.0,
    },
]
PORT = {
    "format": 1,
    "counts": {"filled": 265, "reset": 2, "waived": 55},
    "source": "weights.safetensors",
    "sha256": "ab" * 32,
    "entries": [
        {"target": "params/stem/conv/kernel", "source": "conv1.weight", "status": "filled"}
    ],
}
CONFIG = {
    "seed": 3,
    "model": {"name": "resnet20"},
    "data": {"name": "digits"},
    "optim": {"b2": 0.99987654},
}


def make_run(folder, *, names=("alpha", "beta"), result=RESULT, loss=0.5):
    folder.mkdir(exist_ok=True)
    lines = [
        {
            "step": step,
            "split": split,
            "loss": loss if step == 20 else 1.0,
            "top1_accuracy": 0.5 + step / 100,
        }
        for step in (10, 20)
        for split in ("train", "validation")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, content in {
        "config": CONFIG,
        "result": result,
        "freezing": FREEZING,
        "port_report": PORT,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    write_predictions(folder, names=names)
    return folder


def write_predictions(
    folder, *, names=("alpha", "beta"), probabilities=PROBABILITIES, labels=LABELS, **arrays
):
    count = len(labels)
    np.savez(
        folder / "predictions.npz",
        probabilities=np.array(probabilities, np.float32),
        labels=np.array(labels, np.int32),
        indices=np.arange(count) + 100,
        mistake_indices=np.array([103, 101]),
        mistake_images=np.full((2, 8, 8, 1), 128, np.uint8),
        class_names=np.array(names),
        **arrays,
    )


@pytest.fixture(autouse=True)
def quick_plots(request, monkeypatch):
    """Makes figures but draws them only in tests marked so: drawing takes nearly all the time."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(plots, "to_png", lambda figure: b"\x89PNG")


@pytest.fixture
def drawn():
    """Asks for real plots."""


class Page(html.parser.HTMLParser):
    """The tags of a page and its text, spaces joined."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._skipped = [], [], False
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._skipped = tag == "style"

    def handle_endtag(self, tag):
        self._skipped = False

    def handle_data(self, data):
        if not self._skipped:
            self.words.append(data)

    def ids(self):
        return {attributes["id"] for tag, attributes in self.tags if tag == "section"}


def report_of(folder, **keywords):
    return Page(write_report(folder, **keywords).read_text(encoding="utf-8"))


SECTIONS = {
    "results": "result.json",
    "curves": "metrics.jsonl",
    "confusion": "predictions.npz",
    "classes": "predictions.npz",
    "calibration": "predictions.npz",
    "mistakes": "predictions.npz",
    "freezing": "freezing.json",
    "weights": "port_report.json",
    "configuration": "config.json",
}


def test_the_numbers_are_those_computed_by_hand(tmp_path):
    text = report_of(make_run(tmp_path)).text
    for expected in (
        "3 of 5 examples of the test split are right (60.00%)",
        # Bins: three at 0.9 of which two are right, one right at 0.8, one wrong at 0.6:
        # (3 * |2/3 - 0.9| + |1 - 0.8| + |0 - 0.6|) / 5 = (0.7 + 0.2 + 0.6) / 5.
        "Expected calibration error 0.3000 of the test split",
        "Mean confidence 82.00%, accuracy 60.00%",
        "overconfident by 22.00 percentage points",
        "test 5 60.00% 23.07% to 88.24% 0.6250",
        "alpha 2 50.0% 50.0% 50.0% beta (1)",
        "beta 3 66.7% 66.7% 66.7% alpha (1)",
        "mean of 2 classes 5 58.3% 58.3% 58.3%",
        "weighted by examples 5 60.0% 60.0% 60.0%",
        "the mean recall of the classes that have examples, is 58.3%",
        "true beta, predicted alpha with 0.90",
        "wall time 1:15 min",
        "device 2 x cpu (cpu)",
        "Model selection. step 20 of 20, the best on 4 held-out images",
        "3 frozen leaves and 2 frozen BatchNorm statistics are unchanged",
        "sha256 " + "ab" * 32,
        "filled 265 reset 2 waived 55",
        "params/stem/conv/kernel conv1.weight filled",
        "b2 0.99987654",
        "jax 0.10.2",
        "git revision 0123456789abcdef",
        "stem 9,408 0 frozen -",
    ):
        assert expected in text
    assert text.index("true beta, predicted alpha") < text.index("true alpha, predicted beta")
    assert "Left out of this report" not in text


def test_mistakes_are_shown_with_their_files(tmp_path):
    folder = make_run(tmp_path)
    assert "with 0.90 example 101" in report_of(folder).text
    files = np.array(["", "/home/me/photos/beta/it's 3.jpg"])
    write_predictions(folder, mistake_files=files)
    page = report_of(folder)
    assert "true beta, predicted alpha with 0.90 beta/it's 3.jpg" in page.text
    assert "with 0.60 example 103" in page.text
    assert ("span", {"class": "soft", "title": str(files[1])}) in page.tags


def test_the_page_loads_nothing_and_describes_its_pictures(tmp_path, drawn):
    path = write_report(make_run(tmp_path))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        if tag == "img":
            assert len(attributes["alt"]) > 10
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert (
        "http:" not in text
        and "https:" not in text
        and "@import" not in text
        and "url(" not in text
    )
    plots_written = sorted(entry.name for entry in (tmp_path / "plots").iterdir())
    assert plots_written == ["confusion.png", "loss.png", "reliability.png", "top1_accuracy.png"]
    for entry in (tmp_path / "plots").iterdir():
        assert entry.read_bytes().startswith(b"\x89PNG")


def test_links_within_the_page_lead_somewhere(tmp_path):
    page = report_of(make_run(tmp_path))
    links = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert links <= page.ids() and links >= SECTIONS.keys()


def test_hostile_names_are_text(tmp_path, drawn):
    folder = make_run(tmp_path, names=(HOSTILE, "$\\frac{$ \u732b"))
    config = {**CONFIG, "model": {"name": HOSTILE}}
    (folder / "config.json").write_text(json.dumps(config))
    page = report_of(folder)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text and "$\\frac{$ \u732b" in page.text


@pytest.mark.parametrize("name", sorted(set(SECTIONS.values())))
@pytest.mark.parametrize(
    "content", [None, b"", b"{\x00 broken", b"[1]\n"], ids=["missing", "empty", "broken", "wrong"]
)
def test_without_a_file_its_sections_are_left_out_with_a_word(tmp_path, name, content):
    folder = make_run(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    page = report_of(folder)
    lost = {section for section, file in SECTIONS.items() if file == name}
    assert SECTIONS.keys() & page.ids() == SECTIONS.keys() - lost
    assert name in page.text.split("Left out of this report")[1]


def test_an_empty_folder_gives_a_page(tmp_path):
    page = report_of(tmp_path)
    assert page.ids() == {"notes"}
    assert "has no final result yet" in page.text


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "absent")


def test_a_result_can_be_given_before_it_is_written(tmp_path):
    folder = make_run(tmp_path)
    (folder / "result.json").unlink()
    page = report_of(folder, result=RESULT)
    assert "results" in page.ids() and "result.json" not in page.text


@pytest.mark.parametrize("value", [math.nan, None, "nan", "inf"])
def test_metrics_that_are_not_finite(tmp_path, value):
    splits = {
        "test": {"loss": value, "top1_accuracy": value, "top5_accuracy": value, "examples": 5}
    }
    result = {**RESULT, "splits": splits, "wall_seconds": value}
    page = report_of(make_run(tmp_path, result=result, loss=value))
    assert "not finite" in page.text
    assert "2 values of loss in metrics.jsonl are not finite" in page.text


def test_probabilities_that_are_not_finite(tmp_path):
    folder = make_run(tmp_path)
    write_predictions(folder, probabilities=[[math.nan, 0.1], *PROBABILITIES[1:]])
    page = report_of(folder)
    assert "the probabilities of 1 of 5 examples are not finite" in page.text
    assert "confusion" not in page.ids()


def test_frozen_leaves_that_changed_are_shouted(tmp_path):
    frozen = {"frozen_leaves": 3, "frozen_statistics": 2, "changed": ["params/stem/conv/kernel"]}
    page = report_of(make_run(tmp_path, result={**RESULT, "frozen": frozen}))
    assert "Frozen, and yet changed by training: params/stem/conv/kernel" in page.text
    assert "are unchanged" not in page.text


def test_many_classes_fold_the_table(tmp_path):
    folder = make_run(tmp_path)
    labels = np.arange(400) % 200
    probabilities = np.full((400, 200), 0.1 / 199)
    # The second example of class 7 is taken for class 9.
    predicted = labels.copy()
    predicted[207] = 9
    probabilities[np.arange(400), predicted] = 0.9
    names = [f"class{place}" for place in range(200)]
    write_predictions(folder, names=names, probabilities=probabilities, labels=labels)
    page = report_of(folder)
    assert "The other 180 classes" in page.text
    assert "class7 class9 1 50.0%" in page.text
    assert page.text.index("class7 2 100.0% 50.0% 66.7% class9 (1)") < page.text.index(
        "class0 2 100.0%"
    )


@pytest.mark.parametrize(
    ("num_classes", "cells", "names"), [(2, 4, 2), (20, 40, 20), (50, 0, 50), (200, 0, None)]
)
def test_labels_of_the_confusion_matrix_thin_out(num_classes, cells, names):
    matrix = np.eye(num_classes, dtype=np.int64) * 8
    matrix[np.arange(num_classes), (np.arange(num_classes) + 1) % num_classes] = 1
    axes = plots.confusion(matrix, [f"n{place}" for place in range(num_classes)]).axes[0]
    assert len(axes.texts) == cells
    if names is not None:
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            f"n{i}" for i in range(names)
        ]


def test_classes_without_examples_come_last():
    rows = analysis.class_rows(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ("a", "b", "absent"))
    assert [row.name for row in rows] == ["a", "b", "absent"]


def test_where_the_data_lay_and_what_was_computed_once(tmp_path):
    cache = {
        "boundary": "pool",
        "storage": "device",
        "banks": [{"state": "there"}],
        "verified": {"updates": 20, "largest_difference": 3e-8},
    }
    how = {"data": "device, replicated", "updates_per_dispatch": 176}
    result = {**RESULT, "dispatch": how, "waiting_share": 0.00884, "cache": cache}
    text = write_report(make_run(tmp_path / "run", result=result)).read_text()
    assert "device, replicated, up to 176 updates a dispatch" in text
    assert "0.88% of the time" in text
    assert (
        "computed once after pool, read from device, found from an earlier run; "
        "20 updates both ways differ by 3.0e-08 at most"
    ) in text


def test_means_are_said_to_be_of_the_classes_they_are_of(tmp_path):
    """Of three, one has no example and no prediction."""
    folder = make_run(tmp_path / "run")
    probabilities = [[*row, 0.0] for row in PROBABILITIES]
    write_predictions(folder, names=("alpha", "beta", "absent"), probabilities=probabilities)
    assert "mean of 2 classes 5 58.3% 58.3% 58.3%" in report_of(folder).text


def test_without_mistakes_there_is_one_scale_of_colour(tmp_path):
    names = ("alpha", "beta")
    assert len(plots.confusion(np.array([[3, 0], [0, 2]]), names).axes) == 2
    assert len(plots.confusion(np.array([[3, 0], [1, 2]]), names).axes) == 3
    folder = make_run(tmp_path / "run", loss=-1e-9)
    write_predictions(folder, labels=np.argmax(PROBABILITIES, axis=1))
    assert "on another for mistakes" not in report_of(folder).text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "default"),
        ({"jax_default_matmul_precision": "high"}, "default (JAX: high)"),
        ({"precision": "highest", "jax_default_matmul_precision": "high"}, "highest"),
        (
            {"deterministic": True, "compiler_options": {"a": 1}, "refused_options": {"b": "no"}},
            "default, deterministic, a=1, b refused",
        ),
    ],
)
def test_how_products_were_made_and_how_long_the_devices_were_idle(changes, said, tmp_path):
    numerics = {
        "precision": "default",
        "jax_default_matmul_precision": None,
        "deterministic": False,
        "compiler_options": {},
        "refused_options": {},
    }
    make_run(tmp_path, result={**RESULT, "device_idle_share": 0.5, "numerics": numerics | changes})
    page = write_report(tmp_path).read_text()
    assert f"<dt>precision</dt><dd>{said}</dd>" in "".join(page.split("\n"))
    assert "50.00% of the time, what is compiled" in page
