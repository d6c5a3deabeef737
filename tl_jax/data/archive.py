"""Archives of images, read in place: nothing in them is unpacked under a name of its own.

A member of a .zip is read by its offset, and so is one of a .tar. A compressed .tar (.tar.gz, .tar.xz,
.tar.bz2) has no offsets: it is decompressed once into one file, which is kept in the cache and read as any
.tar. Members are called as if the archive were a folder: photos.zip/cat/1.jpg.

Reads are by position (`os.pread`): threads and processes share no place in a file.
"""

import bz2
import dataclasses
import gzip
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tl_jax import console, files
from tl_jax.data import listing, notation
from tl_jax.errors import InputError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_OPENERS: dict[str, Callable] = {
    **dict.fromkeys((".gz", ".tgz"), gzip.open),
    **dict.fromkeys((".xz", ".txz"), lzma.open),
    **dict.fromkeys((".bz2", ".tbz2"), bz2.open),
}
# NotImplementedError: a .zip that says it needs a newer version of the format, or a method that is not known.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    NotImplementedError,
)
_HEADER_BYTES = 30  # of a member of a .zip, before its name
_ENCRYPTED = 1
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_LARGEST = 1 << 30  # bytes of a member that is read: no image is larger
_UNPACKED, _FACTS = "members.tar", "files.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    """Where a file is in an archive.

    Attributes:
        start: offset of its content in a .tar, of its header in a .zip.
        stored: bytes that it takes there.
        size: bytes that it has.
        method: how it is compressed, as in a .zip; None: it is in a .tar.
        checksum: CRC-32 of its content, of a .zip.
    """

    start: int
    stored: int
    size: int
    method: int | None = None
    checksum: int = 0


def find(path: Path) -> tuple[Path, PurePosixPath] | None:
    """Returns the archive that a path names or goes through, and the place in it; None if there is none.

    Example: photos.zip/flowers is (photos.zip, flowers).
    """
    for parent in (path, *path.parents):
        if parent.name.lower().endswith(ENDINGS) and os.path.isfile(parent):
            return parent, PurePosixPath(path.relative_to(parent).as_posix())
    return None


class Archive:
    """An archive as a `listing.Storage`.

    Symbolic links and members outside of the archive (absolute, or with `..`) are passed over. Of several
    members with one name the last counts, as where they are unpacked.

    Args:
        path: of a file whose name ends in one of `ENDINGS`.
        cache_dir: where what is decompressed is kept; None, or a place that cannot be written: in a temporary
            folder, until this object goes.

    Attributes:
        path: of the archive.
        unsafe: the names of the members that were passed over.

    Raises:
        InputError: if the file is no such archive, damaged, encrypted or compressed in a way that is not read.
    """

    def __init__(self, path: Path, cache_dir: Path | None = None):
        self.path = path
        self._file = path
        self._descriptor: int | None = None
        self.unsafe: list[str] = []
        self._members: dict[str, _Member] = {}
        # By folder: the names of the folders and of the files in it.
        self._folders: dict[str, tuple[set[str], list[str]]] = {str(path): (set(), [])}
        try:
            self._status = listing.status_of(path)
            if path.name.lower().endswith(".zip"):
                members = _zip_members(path, self.unsafe)
            else:
                self._file = self._as_tar(cache_dir)
                self._status = listing.status_of(self._file)
                members = _tar_members(self._file, self.unsafe)
            for name, member in members:
                self._add(name, member)
        except _DAMAGE as error:
            if files.is_disk_full(error):
                raise
            raise InputError(f"{path} is not a readable archive: {error}") from error

    def _as_tar(self, cache_dir: Path | None) -> Path:
        """Returns the .tar that the archive is, or that it is the compressed form of."""
        opener = _OPENERS.get(self.path.suffix.lower())
        if opener is None:
            return self.path
        key = f"archive-{files.digest(self.path)}"
        if cache_dir is not None and _is_whole(cache_dir / key):
            return cache_dir / key / _UNPACKED
        try:
            draft = files.Draft(cache_dir or self._temporary())
        except OSError as error:
            console.note(f"{cache_dir} cannot be written, a temporary folder serves: {error}")
            draft = files.Draft(self._temporary())
        with draft:
            entry = draft.path.with_name(key)
            console.note(f"decompressing {self.path}, once: {entry} (may be deleted)")
            unpacked = draft.path / _UNPACKED
            with (
                files.explain_full_disk(_UNPACKED, draft.path, os.path.getsize(self.path)),
                opener(self.path) as source,
                open(unpacked, "wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
            files.write(draft.path / _FACTS, files.to_json({_UNPACKED: files.digest(unpacked)}))
            draft.publish(key, _is_whole)
        return entry / _UNPACKED

    def _temporary(self) -> Path:
        folder = tempfile.mkdtemp(prefix="tl_jax-")
        weakref.finalize(self, shutil.rmtree, folder, True)
        return Path(folder)

    def _add(self, name: str, member: _Member | None) -> None:
        """Adds a file, or a folder where `member` is None."""
        parts = PurePosixPath(name).parts
        place = str(self.path)
        for depth, part in enumerate(parts):
            folders, names = self._folders[place]
            if depth == len(parts) - 1 and member is not None:
                names.append(part)
            else:
                folders.add(part)
                self._folders.setdefault(os.path.join(place, part), (set(), []))
            place = os.path.join(place, part)
        if member is not None:
            if place in self._members:
                self._folders[os.path.dirname(place)][1].pop()
            self._members[place] = member

    def root(self, inside: PurePosixPath) -> Path:
        """Returns where images begin: below one folder around all others, where there is one.

        Args:
            inside: the place in the archive to begin at.

        Raises:
            InputError: if there is no such folder.
        """
        folder = self.path / inside
        if not self.is_folder(folder):
            below = self.subfolders(self.path)
            names = listing.some([path.name for path in below]) or "none"
            raise InputError(f"{self.path} has no folder {inside}; its folders: {names}")
        while True:
            below = self.subfolders(folder)
            if (
                len(below) != 1
                or notation.role(below[0].name)
                or self.images(folder, nested=False)
                or not self.subfolders(below[0])
            ):
                return folder
            folder = below[0]

    def is_folder(self, path: Path) -> bool:
        """See `listing.Storage`."""
        return str(path) in self._folders

    def subfolders(self, folder: Path, ignored: listing.Ignored | None = None) -> list[Path]:
        """See `listing.Storage`."""
        ignored = listing.Ignored() if ignored is None else ignored
        found = [folder / name for name in sorted(self._folders[str(folder)][0])]
        system = [path for path in found if listing.is_system_folder(path.name)]
        ignored.folders += map(str, system)
        return [path for path in found if path not in system]

    def images(
        self,
        folder: Path,
        ignored: listing.Ignored | None = None,
        *,
        nested: bool = True,
    ) -> list[str]:
        """See `listing.Storage`."""
        ignored = listing.Ignored() if ignored is None else ignored
        paths = (os.path.join(folder, name) for name in self._folders[str(folder)][1])
        found = list(filter(ignored.is_image, paths))
        for below in self.subfolders(folder, ignored) if nested else ():
            found += self.images(below, ignored)
        return sorted(found)

    def tables(self, folder: Path) -> list[Path]:
        """See `listing.Storage`."""
        names = sorted(self._folders[str(folder)][1])
        return [folder / name for name in names if name.endswith(".txt")]

    def read(self, path: str) -> bytes:
        """See `listing.Storage`."""
        member = self._members.get(path)
        if member is None:
            raise FileNotFoundError(f"{path}: the archive has no such member")
        if max(member.stored, member.size) > _LARGEST:
            raise OSError(f"{path} is said to have {member.size:,} bytes: no image has")
        start = member.start
        if member.method is not None:
            header = self._pread(_HEADER_BYTES, start, path)
            if header[:4] != b"PK\3\4":
                raise OSError(f"{path}: the archive is damaged")
            start += _HEADER_BYTES + sum(struct.unpack("<HH", header[26:30]))
        content = self._pread(member.stored, start, path)
        if member.method is None:
            return content
        if member.method == _DEFLATED:
            try:
                # No more than it is said to have.
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
            except zlib.error as error:
                raise OSError(f"{path} is damaged in the archive: {error}") from error
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise OSError(f"{path} is damaged in the archive: its checksum is wrong")
        return content

    def header(self, path: str) -> bytes:
        """See `listing.Storage`."""
        return self.read(path)

    def size(self, path: str) -> int | None:
        """See `listing.Storage`."""
        return self._members[path].size

    def status(self, path: str) -> listing.Status | None:
        """See `listing.Storage`; None where the archive was changed since it was opened."""
        now, member = listing.status_of(self._file), self._members.get(path)
        if now is None or member is None or now != self._status:
            return None
        return now._replace(start=member.start)

    def _pread(self, count: int, start: int, path: str) -> bytes:
        if self._descriptor is None:
            self._descriptor = os.open(self._file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
        content = os.pread(self._descriptor, count, start)
        if len(content) != count:
            raise OSError(f"{path}: the archive is cut short")
        return content

    def __getstate__(self) -> dict[str, object]:
        """Leaves out the open file, of which every process has its own."""
        return {**self.__dict__, "_descriptor": None}


def _zip_members(path: Path, unsafe: list[str]) -> Iterator[tuple[str, _Member | None]]:
    """Yields the files of a .zip, and its folders with None; `unsafe` gets what is passed over."""
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            name = info.filename.replace("\\", "/")  # as some programs on Windows write
            link = stat.S_ISLNK(info.external_attr >> 16)
            if _is_unsafe(name) or link:
                unsafe.append(name)
            elif name.endswith("/"):
                yield name, None
            else:
                if info.flag_bits & _ENCRYPTED:
                    raise InputError(f"{path} is encrypted; expected an archive without a password")
                if info.compress_type not in (_STORED, _DEFLATED):
                    raise InputError(
                        f"{path}: {name} is compressed by a method that is not read here; "
                        "expected a .zip of the usual kind (deflate): unpack it and give the folder"
                    )
                yield (
                    name,
                    _Member(
                        info.header_offset,
                        info.compress_size,
                        info.file_size,
                        info.compress_type,
                        info.CRC,
                    ),
                )


def _tar_members(path: Path, unsafe: list[str]) -> Iterator[tuple[str, _Member | None]]:
    """Yields the files of a .tar, and its folders with None; `unsafe` gets what is passed over."""
    whole: dict[str, _Member] = {}
    with open(path, "rb") as file:
        # Two blocks of zeros are the end. Without them it is cut short, perhaps between two members.
        file.seek(-min(tarfile.BLOCKSIZE, os.path.getsize(path)), os.SEEK_END)
        if any(file.read()):
            raise tarfile.ReadError("it is cut short, or no .tar")
    with tarfile.open(path, "r:") as opened:
        for info in opened:
            name = info.name.removeprefix("./")
            if _is_unsafe(name):
                unsafe.append(name)
            elif info.isdir():
                yield name, None
            elif info.isreg() and not info.issparse():
                whole[name] = _Member(info.offset_data, info.size, info.size)
                yield name, whole[name]
            elif info.islnk() and info.linkname.removeprefix("./") in whole:
                yield name, whole[info.linkname.removeprefix("./")]
            else:
                unsafe.append(name)


def _is_unsafe(name: str) -> bool:
    """Returns whether a member would be outside of the folder into which it is unpacked."""
    place = PurePosixPath(name)
    return place.is_absolute() or ".." in place.parts or name[1:2] == ":"


def _is_whole(folder: Path) -> bool:
    """Returns whether a decompressed archive is as it was written; it is read whole."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
        return files.digest(folder / _UNPACKED) == facts[_UNPACKED]
    except (OSError, ValueError, KeyError, TypeError):
        return False
