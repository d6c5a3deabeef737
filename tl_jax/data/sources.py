"""From the name of a data set to the data set itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tl_jax import errors
from tl_jax.data import archive, arrays, csv_table, folder, prepare, records, skipping, tfds_source
from tl_jax.data.split import InMemorySplit
from tl_jax.errors import InputError, taken

FORMS = ("digits", "folder:PATH", "csv:PATH", "npz:PATH", "tfds:NAME", "tfds:NAME/CONFIG")
DEFAULT_DATA_DIR = "~/tensorflow_datasets"
_REGISTERED: dict[str, Callable[[str], "Source"]] = {}

# A whole split of a data set, as it is stored.
Stored = InMemorySplit | records.LazySplit


class Source(Protocol):
    """A data set with named splits."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def split_names(self) -> tuple[str, ...]:
        """What `split` takes."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, a line each: files that were ignored, suspicious names."""
        ...

    def split(self, name: str) -> Stored:
        """Returns one of `split_names`."""
        ...


def open_source(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int = 0,
    download: bool = True,
    cache_dir: Path | None = None,
    skip: skipping.Skip | None = None,
) -> Source:
    """Returns the source that `name` stands for; see `load_splits` and `FileSource`."""
    kind, _, rest = name.partition(":")
    if name == "digits":
        return arrays.Digits()
    if kind == "npz" and rest:
        return arrays.Npz(_find(rest, data_dir))
    if kind == "folder" and rest:
        return folder.Folder(_find_images(rest, data_dir), image_size, skip, cache_dir)
    if kind == "csv" and rest:
        return csv_table.CsvTable(_find(rest, data_dir), image_size, skip, cache_dir)
    if kind == "tfds" and rest:
        root = Path(data_dir or DEFAULT_DATA_DIR).expanduser()
        parsed = tfds_source.Name.parse(rest)
        found = prepare.find_or_prepare(parsed, root, fetch=download)
        return tfds_source.Tfds(found, parsed, image_size)
    if kind in _REGISTERED:
        return _REGISTERED[kind](rest)
    forms = (*FORMS, *(f"{own}:..." for own in _REGISTERED))
    raise errors.unknown("data set", name, forms, _nearest(name, data_dir))


def register(kind: str, open_named: Callable[[str], Source], *, replace: bool = False) -> None:
    """Makes `KIND:REST` a name of data sets, for `data.name` in a config.

    Args:
        kind: without a colon, and none of ours.
        open_named: from REST to the source; see `Source`.
        replace: whether it takes the place of another kind of that name, registered before.

    Raises:
        InputError: if the kind is taken and `replace` is False, is one of ours, or has a colon.
    """
    ours = {form.partition(":")[0] for form in FORMS}
    if not kind or ":" in kind or kind in ours:
        raise InputError(
            f"data.register({kind!r}): expected a name without a colon that is none of "
            f"{', '.join(sorted(ours))}"
        )
    if _REGISTERED.get(kind, open_named) != open_named and not replace:
        raise taken("kind of data set", kind)
    _REGISTERED[kind] = open_named


def _nearest(name: str, data_dir: str | Path | None) -> list[str]:
    """Returns the name of the data set that a path, or a name with a typo in its kind, stands for; [] if none."""
    kind, colon, rest = name.partition(":")
    forms = {form.partition(":")[0]: form for form in reversed(FORMS)}
    if rest:
        known = [own for own in (*forms, *_REGISTERED) if forms.get(own) != own]
        return [f"{near}:{rest}" for near in errors.nearest(kind, known, 1)]
    path = _find_images(name, data_dir) if name else Path()
    if not name or colon or not _exists(path):
        return []
    if os.path.isdir(path) or archive.find(path) is not None:
        return [f"folder:{name}"]
    by_ending = {".csv": "csv", ".tsv": "csv", ".npz": "npz"}
    return [f"{by_ending[path.suffix.lower()]}:{name}"] if path.suffix.lower() in by_ending else []


def _find(path: str, data_dir: str | Path | None) -> Path:
    given = Path(path).expanduser()
    if data_dir is not None and not _exists(given):
        below = Path(data_dir).expanduser() / given
        return below if _exists(below) else given
    return given


def _find_images(path: str, data_dir: str | Path | None) -> Path:
    """Returns a folder or archive; of a folder that is not there, the one archive that is called as it."""
    found = _find(path, data_dir)
    if not _exists(found):
        named = [_find(f"{path}{ending}", data_dir) for ending in archive.ENDINGS]
        archives = [place for place in named if _exists(place)]
        return archives[0] if len(archives) == 1 else found
    return found


def _exists(path: Path) -> bool:
    return os.path.exists(path) or archive.find(path) is not None
