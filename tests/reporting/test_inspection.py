"""The page about a data set says what was found, leakage first, and loads nothing."""

import json
import re

import numpy as np
import pytest

from tl_jax import data, reporting


def splits_of(test: np.ndarray) -> data.Splits:
    """Six training images of two classes and one of a third; the test images are of the first class."""
    train = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    source = data.Arrays(
        {"train": (train, labels), "test": (test, np.zeros(len(test), int))},
        ("<b>cat", "dog", "owl"),
    )
    return data.Splits(
        {name: source.split(name) for name in ("train", "test")}, "test", ("a note",)
    )


@pytest.fixture(scope="module")
def other():
    return np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)


def page_of(folder, splits):
    found = data.inspect(splits, "arrays")
    return found, reporting.write_inspection(folder, found, examples=2).read_text()


def test_leakage_is_the_first_thing_on_the_page(tmp_path, other):
    splits = splits_of(np.concatenate([other, splits_of(other)["train"].images[3:4]]))
    found, page = page_of(tmp_path, splits)
    assert 'class="warning">leakage: 1 of 4 test images are in train too' in page
    assert page.index("leakage: 1 of 4") < page.index("<h2>") and "a note" in page
    assert (
        "1 of 1 pairs" in page
        and json.loads((tmp_path / "inspection.json").read_text()) == found.to_json()
    )
    row = re.search(r"<tr><td>test</td><td>train</td>(.*?)</tr>", page).group(1)
    assert re.findall(r'">(\d+)<', row) == ["0", "1", "0", "1", "0"]
    assert "deviation of the train images" in page and "and all pairs, are also" in page


def test_images_that_are_only_alike_are_no_warning(tmp_path, other):
    near = np.clip(splits_of(other)["train"].images[3:4], 4, 250) + np.uint8(1)
    found, page = page_of(tmp_path, splits_of(np.concatenate([other, near])))
    assert [pair.kind for pair in found.pairs] == ["near"] and found.pairs[0].other_class
    assert 'class="good">no leakage' in page and "1 of 4 test images are like some of train" in page
    assert 'class="bad"' not in page and 'class="warning"' not in page


def test_a_page_without_leakage(tmp_path, other):
    _, page = page_of(tmp_path, splits_of(other))
    assert 'class="good">no leakage: no image is in two of train, test<' in page
    assert "pairs</h3>" not in page and "Images that cannot be read" not in page


def test_classes_have_counts_and_examples(tmp_path, other):
    _, page = page_of(tmp_path, splits_of(other))
    assert "&lt;b&gt;cat" in page and "<b>cat" not in page
    row = re.search(r'<th scope="row">dog</th>(.*?)<td><img', page, re.DOTALL).group(1)
    assert re.findall(r">(\d+)<", row) == ["3", "0"] and 'class="n bad">0<' in row
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_images_that_cannot_be_read_are_listed(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_text("<html>")
    _, page = page_of(tmp_path, data.open_undecoded(f"folder:{tmp_path / 'photos'}"))
    assert "4 images cannot be read" in page and page.count("it is an HTML page</li>") == 4
