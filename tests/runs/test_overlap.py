"""Whether an evaluation sees images that the run was trained on."""

import numpy as np
import pytest
from PIL import Image

from tl_jax import data
from tl_jax.data import InMemorySplit
from tl_jax.runs import overlap

IMAGES = np.random.default_rng(0).integers(0, 256, (2500, 6, 5, 3), np.uint8)


def split(images):
    return InMemorySplit(images, np.arange(len(images)) % 2, ("a", "b"))


@pytest.fixture
def run(tmp_path):
    """Returns the folder of a run that was trained on the first 1,500 images."""
    overlap.record(tmp_path, split(IMAGES[:1500]))
    return tmp_path


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(range(1500, 2500), 0, id="none"),
        pytest.param(range(1400, 2500), 100, id="some"),
        pytest.param(range(1500), 1500, id="all, in several chunks"),
        pytest.param([7, 7, 2000, 7], 3, id="the same one several times"),
    ],
)
def test_images_that_were_seen_are_counted(run, rows, expected):
    test = split(IMAGES[list(rows)])
    assert overlap.find(run, test) == {"examples": expected}
    assert overlap.find(run, split(IMAGES).subset(np.array(rows))) == {"examples": expected}
    lines = overlap.warning({"examples": expected}, test)
    assert len(lines) == (expected > 0)
    assert all(f"{expected:,} of {len(test):,} test images are" in line for line in lines)


def test_one_pixel_makes_another_image(run):
    images = IMAGES[:1500].copy()
    images[np.arange(1500), np.arange(1500) % 6, np.arange(1500) % 5, np.arange(1500) % 3] ^= 1
    assert overlap.find(run, split(images)) == {"examples": 0}
    # Kept whole, in any process: the first eight bytes of a checksum.
    digest = overlap.digests(split(np.zeros((1, 1, 1, 3), np.uint8)))
    assert digest.tolist() == [int.from_bytes(bytes.fromhex("709e80c88487a241"), "little")]


def test_a_size_that_the_run_did_not_see_says_nothing(run):
    found = overlap.find(run, split(np.zeros((2, 7, 5, 3), np.uint8)))
    assert found["examples"] is None and "at 6x5 pixels, these have another size" in found["reason"]
    assert overlap.warning(found, split(IMAGES[:1])) == []


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"no archive"])
def test_without_a_readable_record_it_is_unknown(tmp_path, content):
    if content is not None:
        (tmp_path / overlap.RECORD).write_bytes(content)
    found = overlap.find(tmp_path, split(IMAGES[:2]))
    assert found == {"examples": None, "reason": "the run has no record of its training images"}


@pytest.mark.parametrize(("name", "most"), [("MOST_IMAGES", 1499), ("MOST_BYTES", 1500 * 90 - 1)])
def test_a_large_split_is_not_read_for_it(run, tmp_path, monkeypatch, name, most):
    monkeypatch.setattr(overlap, name, most)
    overlap.record(tmp_path / "another", split(IMAGES[:1500]))
    assert not (tmp_path / "another").exists()
    assert "too many" in overlap.find(run, split(IMAGES[:1500]))["reason"]
    assert overlap.find(run, split(IMAGES[:1499]))["examples"] == 1499


def test_images_that_are_decoded_on_access_are_not_decoded_for_it(run, tmp_path):
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(path)
    given = {"selection": data.Selection("all[:50%]", "all[50%:]")}
    lazy = data.load_splits(
        f"folder:{tmp_path / 'photos'}", **given, decoding=data.Decoding(max_memory_bytes=0)
    )
    assert overlap.find(run, lazy["test"])["examples"] is None
    decoded = data.load_splits(f"folder:{tmp_path / 'photos'}", **given)
    assert overlap.find(run, decoded["test"])["examples"] == 10
