import io
import pathlib
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tl_jax.data import Decoding, Selection, archive, folder, load_splits, stream
from tl_jax.data.order import Order
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

COMPRESSED = ("tar.gz", "tgz", "tar.xz", "tar.bz2")


@pytest.fixture
def photos(tmp_path):
    """Returns a folder {cat,dog}/{0..4}.png of noise, 8x8, whose class dog has a folder of its own."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "dog/more"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def pack(folder: pathlib.Path, ending: str, prefix: str = "") -> pathlib.Path:
    """Returns an archive of a folder, beside it, its members below `prefix`."""
    path = folder.with_name(f"packed.{ending}")
    members = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if ending.startswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for number, file in enumerate(members):
                kind = zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED
                opened.write(file, prefix + file.relative_to(folder).as_posix(), kind)
        return path
    kind = {"gz": "gz", "tgz": "gz", "xz": "xz", "bz2": "bz2"}.get(ending.rpartition(".")[2], "")
    with tarfile.open(path, f"w:{kind}") as opened:
        for file in members:
            opened.add(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("prefix", ["", "photos/"], ids=["bare", "wrapped"])
@pytest.mark.parametrize("ending", ["zip", "tar", *COMPRESSED])
def test_an_archive_is_the_folder_it_holds(photos, tmp_path, ending, prefix, capsys):
    """Pixels, labels, names, the choice of test, fingerprints; and what was decoded serves both."""
    packed = pack(photos, ending, prefix)
    decoding = Decoding(cache_dir=tmp_path / "cache")
    first = load_splits(f"folder:{photos}", decoding=decoding)
    capsys.readouterr()
    found = load_splits(f"folder:{packed}", decoding=decoding)
    assert "decoding" not in capsys.readouterr().err
    for role, split in first.items():
        np.testing.assert_array_equal(found[role].images, split.images)
        np.testing.assert_array_equal(found[role].labels, split.labels)
        assert found[role].class_names == split.class_names == ("cat", "dog")
        assert found[role].fingerprint() == split.fingerprint()
    where = packed / prefix.rstrip("/")
    assert found["test"].file(0) == first["test"].file(0).replace(str(photos), str(where))


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_threads_and_processes_read_an_archive(photos, ending):
    """Every process has a file of its own, and no place in it."""
    splits = load_splits(
        f"folder:{pack(photos, ending)}", decoding=Decoding(max_memory_bytes=0), wait=False
    )
    split = splits["train"]
    assert isinstance(split, LazySplit)
    expected = load_splits(f"folder:{photos}")["train"].images
    np.testing.assert_array_equal(split.gather(np.arange(len(split))), expected)
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.gather(np.arange(len(split))), expected)
    from absl import flags

    flags.FLAGS(["test"])
    order = Order(0, 6, len(split))
    for batch, step in zip(stream.batches(split, order, 0, 2, workers=1), range(2), strict=True):
        np.testing.assert_array_equal(batch["image"], expected[order.rows(step)])


def test_what_is_decompressed_is_kept_and_verified(photos, tmp_path, capsys):
    packed, cache = pack(photos, "tar.gz"), tmp_path / "cache"
    for number in range(3):
        archive.Archive(packed, cache)
        assert ("decompressing" in capsys.readouterr().err) == (number != 1)
        (entry,) = cache.iterdir()
        assert sorted(path.name for path in entry.iterdir()) == ["files.json", "members.tar"]
        if number == 1:
            content = bytearray((entry / "members.tar").read_bytes())
            content[600] ^= 1
            (entry / "members.tar").write_bytes(content)


def test_without_a_cache_nothing_stays(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    opened = archive.Archive(pack(photos, "tar.gz"))
    assert list((tmp_path / "temporary").iterdir())
    del opened
    assert not list((tmp_path / "temporary").iterdir())


def test_a_cache_that_cannot_be_written_is_no_error(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    opened = archive.Archive(pack(photos, "tar.gz"), tmp_path / "file")
    assert len(opened.images(opened.path)) == 15
    assert "cannot be written, a temporary folder serves" in capsys.readouterr().err


def test_a_full_disk_is_said(photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=r"members\.tar could not be written to .* bytes"):
        archive.Archive(pack(photos, "tar.gz"), tmp_path / "cache")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_members_outside_of_the_archive_are_passed_over(photos, tmp_path, ending):
    packed, image = pack(photos, ending), (photos / "cat/0.png").read_bytes()
    unsafe = ["../outside.png", "/absolute.png", "cat/../../up.png", "C:/drive.png"]
    before = sorted(tmp_path.rglob("*"))
    if ending == "zip":
        with zipfile.ZipFile(packed, "a") as opened:
            for name in unsafe:
                opened.writestr(name, image)
            link = zipfile.ZipInfo("cat/link.png")
            link.external_attr = 0o120777 << 16
            opened.writestr(link, "/etc/passwd")
    else:
        with tarfile.open(packed, "a") as opened:
            for name in unsafe:
                info = member(name)
                info.size = len(image)
                opened.addfile(info, io.BytesIO(image))
            opened.addfile(member("cat/link.png", tarfile.SYMTYPE, "/etc/passwd"))
            opened.addfile(member("cat/device.png", tarfile.CHRTYPE))
            opened.addfile(member("cat/hard.png", tarfile.LNKTYPE, "cat/0.png"))
    found = folder.Folder(packed, 0)
    count = 15 if ending == "zip" else 16  # a hard link is another name of the file
    assert len(found.split("all")) == count
    (note,) = found.notes
    assert "links, and members outside of the archive (" in note and "outside.png" in note
    assert sorted(tmp_path.rglob("*")) == before


def test_what_programs_add_to_archives_is_no_class(photos):
    packed = pack(photos, "zip", "photos/")
    with zipfile.ZipFile(packed, "a") as opened:
        opened.writestr("__MACOSX/photos/cat/._0.png", b"")
        opened.writestr("photos/.DS_Store", b"")
        opened.writestr("photos/owl\\0.png", (photos / "cat/0.png").read_bytes())
        opened.writestr("photos/cat/notes.txt", b"")
    found = folder.Folder(packed, 0)
    assert found.split("all").class_names == ("cat", "dog", "owl")
    assert "1 .txt" in found.notes[0]


def test_of_two_members_of_one_name_the_last_counts(photos):
    packed = pack(photos, "tar")
    other = (photos / "dog/0.png").read_bytes()
    with tarfile.open(packed, "a") as opened:
        info = member("cat/0.png")
        info.size = len(other)
        opened.addfile(info, io.BytesIO(other))
    opened = archive.Archive(packed)
    assert len(opened.images(opened.path)) == 15
    assert opened.read(f"{packed}/cat/0.png") == other


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_folder_in_an_archive(photos, tmp_path, ending):
    for name in ("cat", "dog"):
        shutil.copytree(photos / name, tmp_path / "both" / "old" / name)
        shutil.copytree(photos / name, tmp_path / "both" / "new" / name)
        (tmp_path / "both" / "new" / name / "0.png").unlink()
    packed = pack(tmp_path / "both", ending)
    found = load_splits(f"folder:{packed.name}/new", data_dir=tmp_path)
    assert len(found["train"]) + len(found["test"]) == 13
    with pytest.raises(InputError, match="has no folder nwe; its folders: new, old"):
        load_splits(f"folder:{packed}/nwe")


def test_splits_in_an_archive(photos, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "whole" / split)
    found = load_splits(f"folder:{pack(tmp_path / 'whole', 'zip', 'mine/')}", Selection(test="val"))
    assert len(found["train"]) == len(found["test"]) == 15
    assert any("15 of 15 images of" in note for note in found.notes)


@pytest.mark.parametrize("ending", ["zip", "tar", *COMPRESSED])
@pytest.mark.parametrize("damage", ["cut short", "no archive", "empty"])
def test_what_is_no_archive_is_refused(photos, ending, damage):
    packed = pack(photos, ending)
    content = packed.read_bytes()
    packed.write_bytes(
        {"cut short": content[: len(content) // 2], "no archive": b"text" * 300}.get(damage, b"")
    )
    with pytest.raises(InputError, match=f"{packed.name} "):
        folder.Folder(packed, 0)


def test_a_damaged_member_is_an_image_that_cannot_be_read(photos):
    packed = pack(photos, "zip")
    content = packed.read_bytes()
    for name in ("cat/1.png", "dog/2.png"):  # one is stored, one compressed
        place = content.index(name.encode()) + len(name) + 30
        content = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    packed.write_bytes(content)
    with pytest.raises(InputError, match="2 images cannot be used") as raised:
        load_splits(f"folder:{packed}")
    assert str(raised.value).count("is damaged in the archive") == 2


def test_other_compression_and_passwords_are_refused(photos, monkeypatch):
    packed = photos.with_name("other.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("cat/0.png", b"x" * 100)
    with pytest.raises(InputError, match=r"0\.png is compressed by a method that is not read here"):
        folder.Folder(packed, 0)
    packed = pack(photos, "zip")
    content = bytearray(packed.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    packed.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        folder.Folder(packed, 0)


def test_a_zip_of_a_version_to_come_is_refused(photos):
    packed = pack(photos, "zip")
    content = bytearray(packed.read_bytes())
    content[content.index(b"PK\1\2") + 6] = 99
    packed.write_bytes(content)
    with pytest.raises(InputError, match=r"is not a readable archive: zip file version 9\.9"):
        folder.Folder(packed, 0)


def test_a_member_of_impossible_size_is_not_read(photos, monkeypatch):
    monkeypatch.setattr(archive, "_LARGEST", 10)
    opened = archive.Archive(pack(photos, "zip"))
    with pytest.raises(OSError, match=r"is said to have .* bytes"):
        opened.read(opened.images(opened.path)[0])


def test_the_real_archives(real_data, tmp_path):
    """Of flowers and of animals, each below one folder; animals with train and val."""
    flowers = folder.Folder(real_data / "flowers128.zip", 0)
    assert len(flowers.split("all")) == 4317 and len(flowers.split("all").class_names) == 5
    animals = folder.Folder(real_data / "animals64.zip", 0)
    assert {name: len(animals.split(name)) for name in animals.split_names} == {
        "train": 10_000,
        "val": 1000,
    }
    with zipfile.ZipFile(real_data / "animals64.zip") as opened:
        opened.extractall(tmp_path, [name for name in opened.namelist() if "/val/" in name])
    unpacked = folder.Folder(tmp_path / "animals64" / "val", 0).split("all")
    assert animals.split("val").records.fingerprint() == unpacked.records.fingerprint()
