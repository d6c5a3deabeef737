"""The image files of folders, and what else is there."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image, features

from tl_jax import console
from tl_jax.data import images as decoding
from tl_jax.errors import InputError

_ALWAYS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Read where Pillow can, by itself or through a plugin that the user has imported.
_OPTIONAL = (
    *(".apng", ".avif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpx", ".jxl"),
    *(".mpo", ".pbm", ".pgm", ".pnm", ".qoi", ".tga"),
)
# Libraries that Pillow may be built without, although it always registers their endings.
_LIBRARIES = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
# Pictures, of formats that are not read: worth converting.
_PICTURES = {
    *(*_ALWAYS, *_OPTIONAL),
    *(".arw", ".cr2", ".cr3", ".dng", ".eps", ".ico", ".nef", ".orf", ".psd", ".raw", ".rw2"),
    *(".svg", ".dcm"),
}
_SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "lost+found", "$recycle.bin", "#recycle"),
    "system volume information",
}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}
# Part of a published data set, beside its images: the bounding boxes of Tiny ImageNet.
_KNOWN_BESIDE = ("_boxes.txt",)
_SHOWN = 5


def image_endings() -> tuple[str, ...]:
    """Returns the endings, in lower case, of the files that are read as images."""
    decoding.register_plugins()
    # A plugin that is imported later adds endings.
    return _endings(len(Image.registered_extensions()))


@functools.cache
def _endings(_: int) -> tuple[str, ...]:
    registered = Image.registered_extensions()

    def is_read(ending: str) -> bool:
        kind = registered.get(ending)
        library = _LIBRARIES.get(kind or "")
        return kind in Image.OPEN and (library is None or bool(features.check(library)))

    return tuple(sorted((*_ALWAYS, *filter(is_read, _OPTIONAL))))


@dataclasses.dataclass
class Ignored:
    """What was passed over in some folders.

    Attributes:
        endings: number of files by ending, of types that are not read.
        system: paths of files that an operating system or a file manager left.
        folders: those of operating systems and editors, and those that are not a split.
        loops: symbolic links to a folder that is read already.
        loose: images beside class folders instead of in one.
        unsafe: members of an archive that are outside of it or are links.
    """

    endings: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    system: list[str] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    loops: list[str] = dataclasses.field(default_factory=list)
    loose: list[str] = dataclasses.field(default_factory=list)
    unsafe: list[str] = dataclasses.field(default_factory=list)

    def describe(self) -> str:
        """Returns one line; empty if nothing was passed over.

        Example:
            >>> Ignored(collections.Counter({".heic": 7, ".txt": 1})).describe()
            'files of types that are not read (8): 7 .heic, 1 .txt (convert .heic to .jpg or .png)'
        """
        parts = []
        if self.endings:
            counted = [f"{count} {ending}" for ending, count in self.endings.most_common(10)]
            pictures = sorted(set(self.endings) & _PICTURES)
            convert = f" (convert {', '.join(pictures)} to .jpg or .png)" if pictures else ""
            parts.append(
                f"files of types that are not read ({self.endings.total()}): "
                f"{', '.join(counted)}{convert}"
            )
        named = (
            ("system files", self.system),
            ("folders", self.folders),
            ("symbolic links to folders that are read already", self.loops),
            ("images outside the class folders", self.loose),
            ("links, and members outside of the archive", self.unsafe),
        )
        for what, paths in named:
            distinct = dict.fromkeys(paths)  # some folders are looked at twice
            if distinct:
                names = some([os.path.basename(path) for path in distinct])
                parts.append(f"{what} ({len(distinct)}): {names}")
        return "; ".join(parts)

    def is_image(self, path: str) -> bool:
        """Returns whether a file is read as an image, by its name; notes why where it is not."""
        name = os.path.basename(path)
        ending = os.path.splitext(name)[1].lower()
        if name.startswith(".") or name.lower() in _SYSTEM_FILES:
            self.system.append(path)
        elif ending in image_endings():
            return True
        elif not name.endswith(_KNOWN_BESIDE):
            self.endings[ending or "without ending"] += 1
        return False


class Status(NamedTuple):
    """What changes whenever a file does: whole numbers from 0, below 2**64.

    Attributes:
        stored_bytes: of the file; of a member of an archive, those of the archive, as all but `start`.
        changed_ns: when its content was last changed, as its file system says.
        touched_ns: when anything of it was last changed.
        inode: of the file.
        start: where it begins, in an archive.
    """

    stored_bytes: int
    changed_ns: int
    touched_ns: int
    inode: int
    start: int = 0


def status_of(path: str | os.PathLike[str]) -> Status | None:
    """Returns the status of a file, links followed; None where it cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not os.access(path, os.R_OK):
        return None
    parts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    # Times before 1970 are negative, and the inodes of some servers need all 64 bits.
    return Status(*(part % 2**64 for part in parts))


class Storage(Protocol):
    """Where folders of images are: on a disk, or in an archive. Can be pickled for worker processes."""

    def is_folder(self, path: Path) -> bool:
        """Returns whether there is a folder of that path."""
        ...

    def subfolders(self, folder: Path, ignored: Ignored | None = None) -> list[Path]:
        """See the function `subfolders`."""
        ...

    def images(
        self, folder: Path, ignored: Ignored | None = None, *, nested: bool = True
    ) -> list[str]:
        """See the function `images`."""
        ...

    def tables(self, folder: Path) -> list[Path]:
        """Returns the text files in `folder` itself, by name."""
        ...

    def read(self, path: str) -> bytes:
        """Returns the content of a file.

        Raises:
            OSError: if it cannot be read.
        """
        ...

    def header(self, path: str) -> Path | bytes:
        """Returns what `images.stored_size` reads: the path of a file, or its content; errors as `read`."""
        ...

    def size(self, path: str) -> int | None:
        """Returns the bytes of a file; None if they cannot be known."""
        ...

    def status(self, path: str) -> Status | None:
        """Returns what changes whenever a file does; None if it cannot be read."""
        ...


class Disk:
    """Folders on a disk; see `Storage`."""

    def is_folder(self, path: Path) -> bool:
        """See `Storage`."""
        return os.path.isdir(path)  # pathlib raises errors where this is False

    def subfolders(self, folder: Path, ignored: Ignored | None = None) -> list[Path]:
        """See `Storage`."""
        return subfolders(folder, ignored)

    def images(
        self, folder: Path, ignored: Ignored | None = None, *, nested: bool = True
    ) -> list[str]:
        """See `Storage`."""
        return images(folder, ignored, nested=nested)

    def tables(self, folder: Path) -> list[Path]:
        """See `Storage`."""
        return sorted(folder.glob("*.txt"))

    def read(self, path: str) -> bytes:
        """See `Storage`."""
        with open(path, "rb") as file:
            return file.read()

    def header(self, path: str) -> Path:
        """See `Storage`."""
        return Path(path)

    def size(self, path: str) -> int | None:
        """See `Storage`."""
        try:
            return os.stat(path).st_size
        except OSError:
            return None  # it is reported as an image that cannot be read

    def status(self, path: str) -> Status | None:
        """See `Storage`."""
        return status_of(path)


def subfolders(folder: Path, ignored: Ignored | None = None) -> list[Path]:
    """Returns the folders in `folder` that may be classes or splits, by name.

    Args:
        folder: an existing one.
        ignored: gets the folders that are passed over.

    Raises:
        InputError: if the folder cannot be read or holds a symbolic link to nothing.
    """
    ignored = Ignored() if ignored is None else ignored
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    if is_system_folder(entry.name):
                        ignored.folders.append(entry.path)
                    elif entry.is_symlink() and _holds(entry.path, folder):
                        ignored.loops.append(entry.path)
                    else:
                        found.append(Path(entry.path))
                elif (
                    entry.is_symlink() and not os.path.exists(entry.path) and "." not in entry.name
                ):
                    raise InputError(
                        f"{entry.path} is a symbolic link to {os.readlink(entry.path)}, "
                        "which does not exist"
                    )
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    return found


def images(folder: Path, ignored: Ignored | None = None, *, nested: bool = True) -> list[str]:
    """Returns the paths of the images in `folder`, sorted.

    Args:
        folder: an existing one.
        ignored: gets what is passed over.
        nested: whether to look in the folders below, too.

    Raises:
        InputError: if a folder cannot be read.
    """
    ignored = Ignored() if ignored is None else ignored
    found: list[str] = []
    seen = {_identity(str(folder))}

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error}") from error

    for parent, children, names in os.walk(folder, followlinks=True, onerror=refuse):
        kept = []
        for child in sorted(children) if nested else ():
            path = os.path.join(parent, child)
            if is_system_folder(child):
                ignored.folders.append(path)
            elif (identity := _identity(path)) in seen or (
                os.path.islink(path) and _holds(path, folder)
            ):
                ignored.loops.append(path)
            else:
                seen.add(identity)
                kept.append(child)
        children[:] = kept
        paths = (os.path.join(parent, name) for name in names)
        found += filter(ignored.is_image, paths)
    return sorted(found)


def files_of(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns the files that paths stand for, in order: a folder for all images in it, by name.

    Says what it passed over in folders.

    Raises:
        InputError: if a path does not exist, or a folder has no images.
    """
    files: list[str] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            ignored = Ignored()
            found = images(path, ignored)
            skipped = ignored.describe()
            if skipped:
                console.note(f"{path}: ignored {skipped}")
            if not found:
                endings = ", ".join(image_endings())
                raise InputError(f"{path} has no images; names of images end in {endings}")
            files += found
        elif path.is_file():
            files.append(str(path))
        else:
            raise InputError(f"{path}: no such file or folder")
    return files


def equal_files(
    storage: Storage,
    first: Sequence[str],
    second: Sequence[str],
    digest: Callable[[str], str],
    most_bytes: int = 512 << 20,
) -> list[tuple[int, int]]:
    """Returns where files of `second` have the content of one of `first`.

    Only files of equal size are looked at.

    Args:
        storage: where the files are.
        first: paths.
        second: paths.
        digest: from a path to the digest of its content; OSError where it cannot be read.
        most_bytes: nothing is compared where files of equal size have more than this.

    Returns:
        Pairs of places in `first` and `second`, rising in `second`: of each file in `second` that has
        an equal, one pair.
    """
    sizes = [[storage.size(path) for path in paths] for paths in (first, second)]
    common = set(sizes[0]) & set(sizes[1]) - {0, None}
    places = [[i for i, size in enumerate(found) if size in common] for found in sizes]
    if (
        sum(found[i] or 0 for found, own in zip(sizes, places, strict=True) for i in own)
        > most_bytes
    ):
        return []
    digests = [
        {place: _digest_or_none(digest, paths[place]) for place in own}
        for paths, own in zip((first, second), places, strict=True)
    ]
    by_digest = {content: place for place, content in reversed(digests[0].items()) if content}
    return [
        (by_digest[content], place) for place, content in digests[1].items() if content in by_digest
    ]


def some(names: Sequence[str]) -> str:
    """Returns the first few distinct names, and how many there are more."""
    distinct = list(dict.fromkeys(names))
    more = [f"and {len(distinct) - _SHOWN} more"] if len(distinct) > _SHOWN else []
    return ", ".join([*distinct[:_SHOWN], *more])


def is_system_folder(name: str) -> bool:
    """Returns whether operating systems and editors make folders of that name, beside the images."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _holds(outer: str, inner: Path) -> bool:
    """Returns whether `inner` is `outer` or is below it, all links followed."""
    real = os.path.realpath(outer)
    return os.path.commonpath([real, os.path.realpath(inner)]) == real


def _digest_or_none(digest: Callable[[str], str], path: str) -> str | None:
    try:
        return digest(path)
    except OSError:
        return None
