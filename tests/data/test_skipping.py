import errno
import pathlib
import pickle

import broken_files
import numpy as np
import pytest
from PIL import Image

from tl_jax.data import (
    Decoding,
    Selection,
    folder,
    images,
    listing,
    load_splits,
    records,
)
from tl_jax.errors import InputError

SELECTION = Selection(validation_fraction=0.2, examples_per_class=3)


def skipping(path, cache=None, **options):
    decoding = Decoding(16, unreadable="skip", cache_dir=cache, **options)
    return load_splits(f"folder:{path}", SELECTION, decoding)


@pytest.fixture
def decoded(monkeypatch):
    """Collects the names of decoded images."""
    names, decode = [], images.decode

    def counted(encoded, name, *options):
        names.append(name)
        return decode(encoded, name, *options)

    monkeypatch.setattr(images, "decode", counted)
    return names


def test_all_kinds_of_broken_files_are_one_message(tmp_path):
    broken = broken_files.write(tmp_path)
    with pytest.raises(InputError) as raised:
        load_splits(f"folder:{tmp_path}", decoding=Decoding(16))
    message = str(raised.value)
    assert message.startswith(f"{len(broken)} images cannot be used:")
    assert all(str(path) in message for path in broken)
    for file, (_, said) in broken_files.BROKEN.items():
        (line,) = [line for line in message.splitlines() if f"/{file} " in line]
        assert said in line


@pytest.mark.parametrize("room", [1 << 30, 0], ids=["in memory", "on access"])
def test_what_is_left_out_is_as_if_it_were_not_there(tmp_path, room):
    """All choices are made after it: the fifth that is test, what is held out, the few of a class."""
    broken = broken_files.write(tmp_path / "broken")
    broken_files.write(tmp_path / "clean", broken=False)
    found = skipping(tmp_path / "broken", max_memory_bytes=room)
    expected = load_splits(f"folder:{tmp_path / 'clean'}", SELECTION, Decoding(16))
    assert found.keys() == expected.keys()
    for role, split in found.items():
        np.testing.assert_array_equal(split.gather(np.arange(len(split))), expected[role].images)
        np.testing.assert_array_equal(split.labels, expected[role].labels)
        assert split.fingerprint() == expected[role].fingerprint()
        names = [pathlib.Path(split.file(row)).name for row in range(len(split))]
        assert names == [pathlib.Path(expected[role].file(row)).name for row in range(len(split))]
    assert found.skipped == tuple(sorted(map(str, broken)))
    assert expected.skipped is None
    (note,) = found.notes
    assert f"{len(broken)} images that cannot be read are left out: checksum.png, " in note
    copy = pickle.loads(pickle.dumps(found["train"])) if room == 0 else found["train"]
    np.testing.assert_array_equal(copy.gather(np.arange(3)), expected["train"].images[:3])


def test_what_was_found_is_kept_by_content(tmp_path, decoded, capsys):
    broken_files.write(tmp_path / "photos")
    (tmp_path / "photos/dog/gone.png").unlink()
    first = skipping(tmp_path / "photos", tmp_path / "cache")
    assert len(decoded) > 26
    decoded.clear()
    (tmp_path / "photos").rename(tmp_path / "moved")
    again = skipping(tmp_path / "moved", tmp_path / "cache")
    assert not decoded
    assert [name.replace("photos", "moved") for name in first.skipped] == list(again.skipped)
    # Repaired: looked at again, and used.
    (tmp_path / "moved/cat/empty.jpg").write_bytes(broken_files.encoded("JPEG"))
    repaired = skipping(tmp_path / "moved", tmp_path / "cache")
    assert decoded and len(repaired.skipped) == len(first.skipped) - 1


def test_a_damaged_record_of_what_was_found_is_made_again(tmp_path):
    broken_files.write(tmp_path / "photos")
    first = skipping(tmp_path / "photos", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("unreadable-*.json")
    kept.write_text("{")
    assert skipping(tmp_path / "photos", tmp_path / "cache").skipped == first.skipped
    assert kept.read_text() != "{"


def test_files_that_cannot_be_opened_are_looked_at_each_time(tmp_path):
    """They may be there again later: nothing of them is kept."""
    broken_files.write(tmp_path / "photos", broken=False)
    link = tmp_path / "photos/cat/late.png"
    link.symlink_to(tmp_path / "late.png")
    assert skipping(tmp_path / "photos", tmp_path / "cache").skipped == (str(link),)
    (tmp_path / "late.png").write_bytes(broken_files.encoded("PNG"))
    assert skipping(tmp_path / "photos", tmp_path / "cache").skipped == ()


def test_a_read_error_that_passes_is_not_kept(tmp_path, monkeypatch):
    """The file is read for its fingerprint, then not once more, then again: a disk that fails for a moment."""
    broken_files.write(tmp_path / "photos", broken=False)
    failing, read, count = str(tmp_path / "photos/cat/3.png"), listing.Disk.read, 0

    def fail(storage, path):
        nonlocal count
        count += path == failing
        if path == failing and count in (2, 3):
            raise OSError(errno.EIO, "Input/output error", path)
        return read(storage, path)

    monkeypatch.setattr(listing.Disk, "read", fail)
    assert skipping(tmp_path / "photos", tmp_path / "cache").skipped == (failing,)
    assert not list((tmp_path / "cache").glob("unreadable-*"))
    assert skipping(tmp_path / "photos", tmp_path / "cache").skipped == ()


def test_what_was_found_is_not_kept_for_other_formats(tmp_path, monkeypatch):
    """A plugin that is installed later may read what could not be read."""
    broken_files.write(tmp_path / "photos")
    skipping(tmp_path / "photos", tmp_path / "cache")
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])
    listing._endings.cache_clear()
    skipping(tmp_path / "photos", tmp_path / "cache")
    listing._endings.cache_clear()
    assert len(list((tmp_path / "cache").glob("unreadable-*"))) == 2


@pytest.mark.parametrize(("pixels", "expected"), [(95 * 96, 512), (2**19, 32), (2**23, 2)])
def test_large_photos_are_read_a_few_at_once(monkeypatch, pixels, expected):
    """As decoding for training does: 2**24 pixels at most, 32 images."""

    class Sized:
        class_names, declared_size = ("a",), None

        def size(self, index):
            if index == 1:
                raise InputError("broken")
            return (1, pixels) if index == 2 else (8, 8)

    split = records.LazySplit(Sized(), np.arange(4), 0, "")
    read = []
    monkeypatch.setattr(
        records.LazySplit, "read", lambda split, rows, problems: read.append(len(rows)) or iter(())
    )
    assert split.chunk_size() == expected and not split.undecodable()
    assert sorted(read) == [min(4, expected)] * (4 // min(4, expected))


def test_a_file_without_permission_is_left_out(tmp_path, monkeypatch):
    broken_files.write(tmp_path / "photos", broken=False)
    denied, read = str(tmp_path / "photos/cat/3.png"), pathlib.Path.open

    def refuse(path, *options):
        if path == denied:
            raise PermissionError(13, "Permission denied", path)
        return open(path, *options)

    monkeypatch.setattr("tl_jax.data.listing.open", refuse, raising=False)
    assert skipping(tmp_path / "photos").skipped == (denied,)
    assert read is pathlib.Path.open


def test_a_class_of_which_nothing_is_left_is_an_error(tmp_path):
    broken_files.write(tmp_path / "photos", broken=False)
    (tmp_path / "photos/owl").mkdir()
    (tmp_path / "photos/owl/0.png").write_text("not an image")
    with pytest.raises(
        InputError, match=r"owl has no images.*left out as they cannot be read \(1\): .*owl/0"
    ):
        skipping(tmp_path / "photos")


def test_an_unlabelled_split_is_not_looked_at(tmp_path, decoded):
    for split in ("train", "val"):
        broken_files.write(tmp_path / split, broken=False)
    (tmp_path / "test/images").mkdir(parents=True)
    (tmp_path / "test/images/0.png").write_text("not an image")
    assert skipping(tmp_path).skipped == ()
    assert not any("/test/" in name for name in decoded)


def test_records_of_other_sources_are_left_out_too(tmp_path):
    """As of tfds: what gives encoded images, and says nothing of skipping."""
    broken = broken_files.write(tmp_path)[:1]
    content = [path.read_bytes() for path in sorted((tmp_path / "dog").glob("?.png"))] + [
        broken[0].read_bytes()
    ]

    class Stored:
        class_names, declared_size = ("a", "b"), (16, 16)

        def __len__(self):
            return len(content)

        def read(self, indices):
            return [content[index] for index in indices], np.asarray(indices) % 2

        def labels(self, indices):
            return self.read(indices)[1]

        def describe(self, index):
            return f"record {index}"

        def file(self, index):
            return ""

        def fingerprint(self, *, labelled=False):
            return "stored"

    class Source:
        name, split_names, notes = "stored", ("train", "test"), ()

        def split(self, name):
            return records.LazySplit(Stored(), np.arange(len(content)), 16, name)

    found = load_splits(Source(), decoding=Decoding(16, unreadable="skip"))
    assert len(found["train"]) == len(found["test"]) == len(content) - 1
    assert found.skipped == (f"record {len(content) - 1}",)


def test_a_folder_that_was_opened_without_it_is_looked_at_too(tmp_path):
    broken = broken_files.write(tmp_path)
    found = load_splits(folder.Folder(tmp_path, 16), decoding=Decoding(16, unreadable="skip"))
    assert found.skipped == tuple(sorted(map(str, broken)))
    assert len(found["train"]) + len(found["test"]) == 26


def test_other_words_are_refused():
    with pytest.raises(InputError, match="unknown unreadable 'skipp'; nearest: skip"):
        Decoding(unreadable="skipp")
