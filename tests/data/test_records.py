"""Which images are shrunk while they are decoded, and to what."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tl_jax.data import Decoding, Selection, chunks, images, load_splits, records
from tl_jax.data.sources import open_source


@pytest.fixture
def photos(tmp_path):
    """Returns a function that writes PATH/{a,b}/*.png, two images of noise each, rows x columns."""

    def write(rows: int, columns: int):
        random = np.random.default_rng(0)
        for name in ("a", "b"):
            for number in range(2):
                path = tmp_path / "photos" / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (rows, columns, 3), np.uint8)
                Image.fromarray(pixels).save(path)
        return tmp_path / "photos"

    return write


def train(path, image_size, *, train="train", **decoding):
    return load_splits(f"folder:{path}", Selection(train), Decoding(image_size, **decoding))[
        "train"
    ]


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        pytest.param((16, 16), 8, (16, 16, 3), id="four times the pixels: as stored"),
        pytest.param((16, 17), 8, (8, 8, 3), id="more: shrunk"),
        pytest.param((8, 32), 8, (8, 32, 3), id="pixels count, not sides"),
        pytest.param((16, 16), 64, (16, 16, 3), id="smaller than the network's input"),
        pytest.param((50, 40), 0, (50, 40, 3), id="no size asked for"),
    ],
)
def test_images_of_one_size_are_shrunk_where_they_are_far_larger(
    photos, size, image_size, expected
):
    split = train(photos(*size), image_size)
    assert split.image_shape == split.images.shape[1:] == expected


def test_one_more_image_of_another_size_changes_no_other(photos):
    path = photos(50, 40)
    alike = open_source(f"folder:{path}", image_size=8).split("all").gather(np.arange(4))
    Image.new("RGB", (41, 30)).save(path / "b" / "2.png")
    mixed = open_source(f"folder:{path}", image_size=8).split("all").gather(np.arange(5))
    assert mixed.shape == (5, 8, 8, 3)
    np.testing.assert_array_equal(mixed[:4], alike)


def test_what_is_kept_of_decoded_images_knows_the_side_and_the_filter(photos):
    path = photos(50, 40)
    keys = {
        train(path, side, interpolation=name, max_memory_bytes=0).fingerprint()
        for side, name in [(0, "bilinear"), (8, "bilinear"), (8, "bicubic"), (9, "bilinear")]
    }
    assert len(keys) == 4
    # As stored whatever is asked for: the same images.
    kept = {
        train(path, side, interpolation=name, max_memory_bytes=0).fingerprint()
        for side, name in [(0, "bilinear"), (64, "bilinear"), (64, "bicubic")]
    }
    assert len(kept) == 1


@pytest.mark.parametrize("room", [0, 1 << 30], ids=["on access", "in memory"])
@pytest.mark.parametrize("text", ["train", "train[:50%]+train[50%:]"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_shrunk_by_the_filter_that_was_asked_for(
    photos, tmp_path, room, text, interpolation
):
    for name in ("train", "test"):
        shutil.copytree(photos(50, 40), tmp_path / "split" / name)
    options = {"train": text, "interpolation": interpolation, "max_memory_bytes": room}
    split = train(tmp_path / "split", 8, **options)
    found = split.gather(np.arange(len(split)))
    expected = [
        images.decode(path.read_bytes(), path.name, 8, interpolation)
        for path in (tmp_path / "split" / "train").rglob("*.png")
    ]
    # A slice takes images in an order of its own.
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


def test_memory_is_for_all_splits_together(photos):
    path = photos(10, 10)
    selection = Selection("all[1:3]", "all[:1]+all[3:]")
    for room, expected in [(1200, 2), (1199, 1), (599, 0)]:
        splits = load_splits(f"folder:{path}", selection, Decoding(max_memory_bytes=room))
        lazy = [isinstance(split, records.LazySplit) for split in splits.values()]
        assert len(lazy) - sum(lazy) == expected


def test_decoding_counts_the_threads_and_what_they_read(photos, monkeypatch):
    monkeypatch.setattr(chunks, "threads", lambda: 3)
    path = photos(400, 300)
    split = open_source(f"folder:{path}", image_size=8).split("all")
    sizes = [file.stat().st_size for file in path.rglob("*.png")]
    # Four images are one chunk, for one thread; each stored pixel takes four bytes.
    assert split.decoding_bytes == 4 * 400 * 300 + 4 * max(sizes)


# Not `resource.getrusage`, which starts a process at what its parent held.
_PEAK = """
import re, sys
from tl_jax.data import Decoding, load_splits
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
load_splits("folder:" + sys.argv[1], decoding=Decoding(int(sys.argv[2])))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_photos_are_never_in_memory_whole(tmp_path):
    """40 photos of 2 megapixels are 240 MB as stored, and 80 MB a piece for a few threads."""
    photo = Image.effect_noise((1600, 1250), 60).convert("RGB")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "0.jpg", quality=60)
        for number in range(1, 20):
            (tmp_path / name / f"{number}.jpg").hardlink_to(tmp_path / name / "0.jpg")
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path), "32"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60 * 1024  # KiB
