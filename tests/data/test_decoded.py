import concurrent.futures
import json
import pathlib
import threading

import numpy as np
import pytest

from tl_jax import files
from tl_jax.data import Decoding, InMemorySplit, Selection, decoded, images, load_splits, wait_for
from tl_jax.data.decoded import DecodedCache
from tl_jax.errors import InputError

PIXELS = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
LABELS = np.array([0, 1, 1, 0], np.int32)


@pytest.fixture
def cache(tmp_path) -> DecodedCache:
    """A cache with the entry `key`."""
    cache = DecodedCache(tmp_path / "cache")
    cache.keep("key", PIXELS, LABELS)
    return cache


@pytest.fixture
def source(tmp_path, write_image):
    """Arguments of `load_splits` for ten images of two classes, and a cache."""
    for label, name in enumerate(["cat", "dog"]):
        for number in range(5):
            write_image(tmp_path / "images" / name / f"{number}.png", 10 * label + number)
    return {
        "name": f"folder:{tmp_path / 'images'}",
        "decoding": Decoding(cache_dir=tmp_path / "cache"),
    }


@pytest.fixture
def decodings(monkeypatch):
    """Counts decoded images."""
    names, decode = [], images.decode

    def counted(encoded, name, *options):
        names.append(name)
        return decode(encoded, name, *options)

    monkeypatch.setattr(images, "decode", counted)
    return names


def found(cache: DecodedCache) -> np.ndarray | None:
    kept = cache.find("key")
    return None if kept is None else kept.images()


def test_what_is_kept_comes_back(cache, tmp_path):
    np.testing.assert_array_equal(found(cache), PIXELS)
    np.testing.assert_array_equal(cache.find("key").labels, LABELS)
    assert cache.find("other") is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key"]


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "files.json"])
@pytest.mark.parametrize("damage", ["missing", "cut short", "one bit"])
def test_damage_is_noticed_and_repaired(cache, tmp_path, name, damage):
    path = tmp_path / "cache" / "key" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[:-3])
    else:
        content[-10] ^= 1
        path.write_bytes(content)
    assert found(cache) is None
    cache.keep("key", PIXELS, LABELS)
    np.testing.assert_array_equal(found(cache), PIXELS)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images.npy": 3}', '{"labels.npy": {}}'])
def test_facts_of_another_form_are_no_entry(cache, tmp_path, content):
    (tmp_path / "cache" / "key" / "files.json").write_text(content)
    assert cache.find("key") is None


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cache = DecodedCache(tmp_path / "file")
    assert cache.find("key") is None
    cache.keep("key", PIXELS, LABELS)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"not kept in {tmp_path / 'file'}" in printed


def test_a_full_disk_is_one_line_and_leaves_nothing(cache, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded, "_write", full)
    cache.keep("other", PIXELS, LABELS)
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key"]


def test_the_last_room_on_a_disk_is_not_taken(cache, tmp_path, capsys, monkeypatch):
    free = type("Usage", (), {"free": PIXELS.nbytes})
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: free)
    cache.keep("other", PIXELS, LABELS)
    assert "are free" in capsys.readouterr().err
    assert cache.find("other") is None


def test_drafts_of_killed_processes_go_after_a_day(cache, tmp_path, monkeypatch):
    fresh = tmp_path / "cache" / f".draft-{0:032x}"
    fresh.mkdir()
    cache.keep("key", PIXELS, LABELS)
    assert fresh.is_dir()
    monkeypatch.setattr(files.time, "time", lambda: fresh.stat().st_mtime + 90_000)
    cache.keep("key", PIXELS, LABELS)
    assert not fresh.exists()


def test_several_writers_and_readers_do_no_harm(cache):
    def work(number: int) -> bool:
        if number % 2:
            cache.keep("key", PIXELS, LABELS)
            return True
        pixels = found(cache)  # None where a writer is replacing it
        return pixels is None or bool((pixels == PIXELS).all())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))
    np.testing.assert_array_equal(found(cache), PIXELS)


def test_later_calls_decode_nothing(source, decodings, capsys):
    first = load_splits(**source)
    assert len(decodings) == 10
    assert capsys.readouterr().err.count(str(source["decoding"].cache_dir)) == 2  # train and test
    again = load_splits(**source)
    assert len(decodings) == 10
    assert capsys.readouterr().err == ""
    for role, split in again.items():
        np.testing.assert_array_equal(split.images, first[role].images)
        np.testing.assert_array_equal(split.labels, first[role].labels)
        assert split.fingerprint() == first[role].fingerprint()


def test_other_files_labels_or_sizes_are_decoded_anew(source, decodings, write_image, tmp_path):
    load_splits(**source)
    write_image(tmp_path / "images" / "cat" / "0.png", 200)
    changed = load_splits(**source)
    assert len(decodings) == 20
    values = np.concatenate([split.images[:, 0, 0, 0] for split in changed.values()])
    assert 200 in values
    for number in range(2):  # the same bytes in the same order, now of other classes
        path = tmp_path / "images" / "dog" / f"{number}.png"
        path.rename(tmp_path / "images" / "cat" / f"z{number}.png")
    relabelled = load_splits(
        selection=Selection(train="all[:50%]", test="all[50%:]"), **source
    ).values()
    counts = [np.bincount(split.labels, minlength=2) for split in relabelled]
    assert np.sum(counts, axis=0).tolist() == [7, 3]


def test_an_image_of_another_class_now_has_its_new_label(source, tmp_path, write_image):
    """The last image of a class becomes the first of the next: the same files in the same order."""
    train = tmp_path / "split" / "train"
    for name in ("a/001", "a/002", "a/003", "b/004", "b/005"):
        write_image(train / f"{name}.png", int(name[-1]))
        write_image(tmp_path / "split" / "test" / f"{name}.png", 10 + int(name[-1]))
    options = source | {"name": f"folder:{tmp_path / 'split'}"}
    assert load_splits(**options)["train"].labels.tolist() == [0, 0, 0, 1, 1]
    (train / "a" / "003.png").rename(train / "b" / "003.png")
    again = load_splits(**options)["train"]
    assert again.labels.tolist() == [0, 0, 1, 1, 1]
    assert again.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]


def test_a_damaged_entry_is_decoded_again(source, decodings, tmp_path):
    first = load_splits(**source)
    for path in pathlib.Path(source["decoding"].cache_dir).glob("*/images.npy"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    again = load_splits(**source)
    assert len(decodings) == 20
    np.testing.assert_array_equal(again["train"].images, first["train"].images)
    load_splits(**source)
    assert len(decodings) == 20


def test_an_entry_says_what_it_holds(source):
    load_splits(**source)
    for path in pathlib.Path(source["decoding"].cache_dir).glob("*/files.json"):
        assert set(json.loads(path.read_text())) == {"images.npy", "labels.npy"}


def test_labels_are_at_hand_while_images_are_decoded(source, monkeypatch):
    go, decode = threading.Event(), images.decode

    def held(*arguments):
        assert go.wait(60)
        return decode(*arguments)

    monkeypatch.setattr(images, "decode", held)
    splits = load_splits(selection=Selection(validation_fraction=0.25), **source, wait=False)
    assert np.bincount(splits["train"].labels).tolist() == [3, 3]
    assert splits["train"].image_shape == (8, 8, 3)
    assert len(splits["train"].fingerprint()) == 64
    go.set()
    wait_for(splits)
    assert isinstance(splits["train"], InMemorySplit)
    assert set(splits["train"].images[:, 0, 0, 0].tolist()) <= {0, 1, 2, 3, 4, 10, 11, 12, 13, 14}


def test_a_broken_image_is_named_where_images_are_first_read(source, tmp_path):
    for path in (tmp_path / "images" / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    splits = load_splits(**source, wait=False)
    assert len(splits["train"]) == 8
    for read in (lambda: splits["train"].images, lambda: wait_for(splits)):
        with pytest.raises(InputError, match=r"dog/\d\.png cannot be read as an image"):
            read()
    assert not list(pathlib.Path(source["decoding"].cache_dir).glob("*"))
