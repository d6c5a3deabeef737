"""The index of image files: used while they stay as they are, never when they do not."""

import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tl_jax import data
from tl_jax.data import archive, file_index, images, listing
from tl_jax.data.file_index import FileIndex
from tl_jax.errors import InputError

SETTLED, CHECK_SAMPLE = file_index._SETTLED_NS, FileIndex._check_sample


@pytest.fixture(autouse=True)
def trusting(monkeypatch):
    """Files of these tests are new, and count as long unchanged; none is read to see whether the index is right."""
    monkeypatch.setattr(file_index, "_SETTLED_NS", -(10**18))
    monkeypatch.setattr(FileIndex, "_check_sample", lambda self: None)


def write(path, size=(4, 3), color=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, 0, 0)).save(path)
    return str(path)


class Counting(listing.Disk):
    """Counts the files that are read, and those whose header is."""

    def __init__(self):
        self.opened = []

    def read(self, path):
        self.opened.append(path)
        return super().read(path)

    def header(self, path):
        self.opened.append(path)
        return super().header(path)


def index_of(tmp_path, storage=None):
    return FileIndex(storage or Counting(), tmp_path / "photos", tmp_path / "cache")


def test_a_later_run_opens_no_file(tmp_path):
    path = write(tmp_path / "photos/a/bä 1.png")
    first, again = Counting(), Counting()
    index = index_of(tmp_path, first)
    facts = index.digest(path), index.size(path)
    index.save()
    assert facts[1] == (3, 4) and first.opened == [path, path]
    index = index_of(tmp_path, again)
    assert (index.digest(path), index.size(path)) == facts and again.opened == []


def test_an_index_is_added_to(tmp_path):
    """One run learns the size, another the digest; a third knows both."""
    paths = [write(tmp_path / f"photos/a/{number}.png", color=number) for number in range(3)]
    index = index_of(tmp_path)
    sizes = [index.size(path) for path in paths]
    index.save()
    index = index_of(tmp_path)
    digests = [index.digest(path) for path in paths[1:]]
    index.save()
    storage = Counting()
    index = index_of(tmp_path, storage)
    assert [index.size(path) for path in paths] == sizes
    assert [index.digest(path) for path in paths[1:]] == digests and storage.opened == []
    index.digest(paths[0])
    assert storage.opened == paths[:1]


def test_a_file_of_another_content_is_read_though_its_size_and_time_are_as_before(tmp_path):
    path = write(tmp_path / "photos/a/1.bmp", color=7)
    before = os.stat(path)
    index = index_of(tmp_path)
    digest = index.digest(path)
    index.save()
    write(tmp_path / "photos/a/1.bmp", color=8)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert index_of(tmp_path).digest(path) != digest
    assert index.digest(path) != digest


@pytest.mark.parametrize("field", ["stored_bytes", "changed_ns", "touched_ns", "inode", "start"])
def test_every_part_of_the_status_counts(tmp_path, monkeypatch, field):
    path = write(tmp_path / "photos/a/1.png")
    index = index_of(tmp_path)
    index.size(path)
    status = listing.status_of(path)
    other = status._replace(**{field: getattr(status, field) + 1})
    monkeypatch.setattr(Counting, "status", lambda self, path: other)
    index.size(path)
    assert index._storage.opened == [path, path]


def test_what_changed_just_now_is_for_this_run_alone(tmp_path, monkeypatch):
    """Two seconds is what a second change may go unseen for, on the file systems with the coarsest times."""
    monkeypatch.setattr(file_index, "_SETTLED_NS", SETTLED)
    path = write(tmp_path / "photos/a/1.png")
    os.utime(path, (0, 0))  # its content is old, the file is not
    index = index_of(tmp_path)
    digest = index.digest(path)
    index.save()
    assert not (tmp_path / "cache").exists()
    assert index.digest(path) == digest and index._storage.opened == [path]
    later = listing.status_of(path).touched_ns + SETTLED
    for now, kept in ((later - 1, False), (later, True)):
        monkeypatch.setattr(file_index.time, "time_ns", lambda now=now: now)
        index = index_of(tmp_path)
        index.digest(path)
        index.save()
        assert (tmp_path / "cache").exists() == kept
    assert SETTLED > 2 * 10**9


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path):
    path = write(tmp_path / "photos/a/1.png")

    class Changing(Counting):
        def read(self, path):
            content = super().read(path)
            write(tmp_path / "photos/a/1.png", size=(9, 9))
            return content

    index = index_of(tmp_path, Changing())
    digest = index.digest(path)
    assert index_of(tmp_path).digest(path) != digest
    assert index._entries == {}


def test_errors_are_not_kept(tmp_path):
    path = tmp_path / "photos/a/1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no image")
    index = index_of(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"1\.png"):
            index.size(str(path))
    with pytest.raises(InputError, match="cannot be read as an image"):
        index.size(str(tmp_path / "photos/a/2.png"))
    index.save()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_a_damaged_index_is_as_none(tmp_path, bit):
    path = write(tmp_path / "photos/a/1.png")
    index = index_of(tmp_path)
    facts = index.size(path), index.digest(path)
    index.save()
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for place in range(len(whole)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    for content in damaged:
        kept.write_bytes(content)
        assert index_of(tmp_path)._entries == {}
    kept.write_bytes(whole)
    index = index_of(tmp_path)
    assert (index.size(path), index.digest(path)) == facts and index._storage.opened == []


@pytest.mark.parametrize("what", ["digest", "size"])
def test_another_disk_in_place_of_one_is_noticed(tmp_path, monkeypatch, what):
    """Images of disks that are built alike have files of the same inodes and times."""
    statuses = {}

    class Alike(Counting):
        def status(self, path):
            return statuses.setdefault(path, super().status(path))

    paths = [write(tmp_path / f"photos/a/{number:02}.bmp") for number in range(40)]
    index = index_of(tmp_path, Alike())
    for path in paths:
        getattr(index, what)(path)
    index.save()
    monkeypatch.setattr(FileIndex, "_check_sample", CHECK_SAMPLE)
    index = index_of(tmp_path, Alike())
    assert len(index._entries) == 40 and len(index._storage.opened) == 16
    assert index._storage.opened[0] == paths[0] and paths[30] in index._storage.opened
    for path in paths:
        write(tmp_path / path, size=(8, 8), color=9)
    assert index_of(tmp_path, Alike())._entries == {}
    # Files that are gone, or changed where it can be seen, say nothing about the others.
    index.save()
    for path in paths[2:]:
        os.remove(path)
    statuses.clear()
    assert len(index_of(tmp_path)._entries) == 40


def test_a_link_to_another_file_is_read(tmp_path):
    files = [write(tmp_path / f"{color}.bmp", color=color) for color in (1, 2)]
    link = tmp_path / "photos/a/1.bmp"
    link.parent.mkdir(parents=True)
    link.symlink_to(files[0])
    first = index_of(tmp_path)
    digest = first.digest(str(link))
    first.save()
    assert index_of(tmp_path).digest(str(link)) == digest
    os.replace(files[1], files[0])
    assert index_of(tmp_path).digest(str(link)) != digest


def test_a_file_that_may_not_be_read_any_more_is_noticed(tmp_path, monkeypatch):
    path = write(tmp_path / "photos/a/1.png")
    index = index_of(tmp_path)
    index.digest(path)
    index.save()

    def refused(self, path):
        raise PermissionError(path)

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Counting, "read", refused)
    with pytest.raises(PermissionError):
        index_of(tmp_path).digest(path)


@pytest.mark.parametrize("name", ["fotos_\udce4", "two\nlines", "bä", "n" * 200])
def test_folders_and_files_of_any_name(tmp_path, name):
    path = write(tmp_path / name / name / f"{name}.bmp")
    index = FileIndex(Counting(), tmp_path / name, tmp_path / "cache")
    digest = index.digest(path)
    index.save()
    again = FileIndex(Counting(), tmp_path / name, tmp_path / "cache")
    assert again.digest(path) == digest and again._storage.opened == []


def test_numbers_of_any_server(tmp_path, monkeypatch):
    """Files of 1601, and inodes of 64 bits."""
    path = write(tmp_path / "photos/a/1.png")
    stat = os.stat(path)
    found = type(
        "Found", (), {name: getattr(stat, name) for name in dir(stat) if name[:3] == "st_"}
    )
    found.st_ino, found.st_mtime_ns = 2**63 + 5, -11_644_473_600 * 10**9
    monkeypatch.setattr(os, "stat", lambda path: found)
    index = index_of(tmp_path)
    index.size(path)
    index.save()
    index = index_of(tmp_path)
    assert index.size(path) == (3, 4) and index._storage.opened == []


def test_one_folder_has_one_index(tmp_path, monkeypatch):
    """Given whole, from the working directory, through a link, with a slash at its end."""
    path = write(tmp_path / "photos/a/1.png")
    index = index_of(tmp_path)
    index.size(path)
    index.save()
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    for root in ("photos", "./photos/", "link"):
        storage = Counting()
        again = FileIndex(storage, file_index.Path(root), tmp_path / "cache")
        assert again.size(f"{root}/a/1.png") == (3, 4) and storage.opened == []


def test_processes_that_save_at_the_same_time(tmp_path, capsys):
    """Each writes a file of its own before the last one's stays."""
    paths = [write(tmp_path / f"photos/a/{number}.png") for number in range(8)]

    def add(path):
        for _ in range(20):
            index = index_of(tmp_path)
            index.digest(path)
            index._changed = True
            index.save()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, paths))
    assert capsys.readouterr().err == ""
    assert index_of(tmp_path)._entries
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_decoder_and_another_folder_know_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "photos/a/1.png")
    index = index_of(tmp_path)
    index.size(path)
    index.save()
    assert FileIndex(Counting(), tmp_path, tmp_path / "cache")._entries == {}
    monkeypatch.setattr(images, "DECODER", "another")
    assert index_of(tmp_path)._entries == {}


def test_a_place_that_cannot_be_written_is_a_line(tmp_path, capsys):
    path = write(tmp_path / "photos/a/1.png")
    (tmp_path / "cache").write_text("a file")
    index = index_of(tmp_path)
    assert index.size(path) == (3, 4)
    index.save()
    assert "the index of image files is not kept in" in capsys.readouterr().err


def test_worker_processes_get_no_facts(tmp_path):
    path = write(tmp_path / "photos/a/1.png")
    index = FileIndex(listing.Disk(), tmp_path / "photos", tmp_path / "cache")
    index.size(path)
    copied = pickle.loads(pickle.dumps(index))
    assert copied._entries == {} and copied.size(path) == (3, 4)
    copied.save()
    assert not (tmp_path / "cache").exists()


def test_members_of_an_archive_are_index_by_the_archive_and_their_place(tmp_path):
    paths = [write(tmp_path / f"{number}.png", color=number) for number in (1, 2)]
    file = tmp_path / "photos.zip"

    def pack(order):
        with zipfile.ZipFile(file, "w") as packed:
            for number in order:
                packed.write(paths[number], f"a/{'xy'[order.index(number)]}.png")

    pack([0, 1])
    opened = archive.Archive(file)
    members = [str(file / "a" / name) for name in ("x.png", "y.png")]
    status = [opened.status(member) for member in members]
    assert status[0].start != status[1].start and status[0].inode == os.stat(file).st_ino
    index = FileIndex(opened, file, tmp_path / "cache")
    digests = [index.digest(member) for member in members]
    index.save()
    pack([1, 0])
    assert opened.status(members[0]) is None  # what this object reads is another archive
    index = FileIndex(archive.Archive(file), file, tmp_path / "cache")
    assert [index.digest(member) for member in members] == digests[::-1]


FORMS = ("folder:photos", "csv:photos/table.csv", "folder:photos.zip", "folder:photos.tar.gz")


@pytest.fixture
def photos(tmp_path):
    """Returns the folder of twelve photos, in four forms."""
    rows = []
    for number in range(12):
        name = f"{'ab'[number % 2]}/{number}.png"
        write(tmp_path / "photos" / name, color=number)
        rows.append(f"{name},{'ab'[number % 2]}\n")
    (tmp_path / "photos/table.csv").write_text("".join(rows))
    for kind in ("zip", "gztar"):
        shutil.make_archive(str(tmp_path / "photos"), kind, tmp_path / "photos")
    return tmp_path


def opened_by(monkeypatch):
    """Returns the paths of images whose header or content is read from now on."""
    paths = []

    def count(storage, method):
        original = getattr(storage, method)

        def counted(self, path):
            paths.append(path)
            return original(self, path)

        monkeypatch.setattr(storage, method, counted)

    for storage in (listing.Disk, archive.Archive):
        count(storage, "read")
        count(storage, "header")
    return paths


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_a_second_start_opens_no_image(photos, monkeypatch, name, wait):
    decoding = data.Decoding(cache_dir=photos / "cache")
    first = data.load_splits(name, decoding=decoding, data_dir=photos)
    expected = first["train"].gather(np.arange(4))
    opened = opened_by(monkeypatch)
    again = data.load_splits(name, decoding=decoding, data_dir=photos, wait=wait)
    np.testing.assert_array_equal(again["train"].gather(np.arange(4)), expected)
    assert again["train"].fingerprint() == first["train"].fingerprint() and opened == []
    data.load_splits(name, data_dir=photos)
    assert len(opened) >= 12


def test_digests_that_are_computed_late_are_saved(photos, monkeypatch):
    """Those of images on access are needed by the stored activations alone."""
    decoding = data.Decoding(max_memory_bytes=0, cache_dir=photos / "cache")
    first = data.load_splits("folder:photos", decoding=decoding, data_dir=photos)
    fingerprint = first["train"].fingerprint()
    opened = opened_by(monkeypatch)
    again = data.load_splits("folder:photos", decoding=decoding, data_dir=photos)
    assert again["train"].fingerprint() == fingerprint and opened == []


def test_a_start_that_fails_saves_what_it_read(photos, monkeypatch):
    """As where broken files are removed one after the other."""
    (photos / "photos/a/broken.png").write_bytes(b"no image")
    decoding = data.Decoding(cache_dir=photos / "cache")
    with pytest.raises(InputError, match=r"broken\.png"):
        data.load_splits("folder:photos", decoding=decoding, data_dir=photos)
    opened = opened_by(monkeypatch)
    with pytest.raises(InputError, match=r"broken\.png"):
        data.load_splits("folder:photos", decoding=decoding, data_dir=photos)
    headers = [path for path in opened if "broken" not in path]
    assert len(headers) == 12  # decoded, to list all that are broken; their headers are known
