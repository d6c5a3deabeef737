"""Folders of images, or archives of such: `PATH/{split}/{class}/*` or `PATH/{class}/*`."""

import collections
import os
import unicodedata
from pathlib import Path

from tl_jax.data import archive, listing, notation
from tl_jax.data.file_records import (
    Files,
    FileSource,
    expected_classes,
    not_classes,
    reference_split,
    similar_names,
)
from tl_jax.data.skipping import Skip
from tl_jax.errors import InputError

_OTHER_ARCHIVES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# What a folder is called that holds images of all classes.
_NO_CLASS = {"images", "image", "imgs", "img", "unknown", "unlabeled", "unlabelled"}
# Beside the splits: what the folders of classes mean, as in Tiny ImageNet, `n02124075<tab>Egyptian cat`.
_WORDS = "words.txt"


class Folder(FileSource):
    """Images in one folder per class; classes are numbered in the order of their names.

    A folder without splits gets three: `test` is a fifth of every class, always the same files,
    `train` the rest and `all` both. Folders inside a class folder belong to the class. A split may
    also be laid out as Tiny ImageNet's `val`: `images/*` and `val_annotations.txt`, whose lines
    begin with a file name and a class; classes are called as `words.txt` says where there is one.
    Class names are compared in Unicode's composed form (NFC).

    Args:
        path: the folder; or an archive, or a folder in one (see `archive.Archive`), where one folder around all
            others plays no part.
        image_size: see `records.LazySplit`.
        skip: see `FileSource`.
        cache_dir: where a compressed .tar is kept decompressed, and the index of the files; None: nowhere.

    Attributes:
        split_names: what `split` takes: the names of folders, as they are.
        notes: what was passed over, a line each.

    Raises:
        InputError: if the folder or its images are missing or cannot be read, there is one class
            only, or a split has a class that `train` has not.
    """

    def __init__(
        self,
        path: Path,
        image_size: int,
        skip: Skip | None = None,
        cache_dir: Path | None = None,
    ):
        found = None if os.path.isdir(path) else archive.find(path)
        storage = listing.Disk() if found is None else archive.Archive(found[0], cache_dir)
        super().__init__(f"folder:{path}", storage, path, image_size, skip, cache_dir)
        self._ignored = listing.Ignored()
        self._left_out: list[str] = []
        self._path = path
        if isinstance(storage, archive.Archive) and found is not None:
            self._path = storage.root(found[1])
            self._ignored.unsafe += storage.unsafe
        elif not storage.is_folder(path):
            raise InputError(_no_folder(path))
        splits = self._split_folders(storage.subfolders(self._path, self._ignored))
        files = {folder.name: self._read_split(folder) for folder in splits}
        if not splits:
            files = {"all": self._classes(self._path)}
        self._index(files)
        ignored = self._ignored.describe()
        self.notes = tuple(
            [f"{self.name}: ignored {ignored}"] * bool(ignored)
            + [f"{self.name}: {line}" for line in self._left_out]
            + [
                f"{self.name}: {line}"
                for line in similar_names(next(iter(self._records.values())).class_names)
            ]
        )

    def _split_folders(self, folders: list[Path]) -> list[Path]:
        """Returns which of the folders are splits; none where they are classes."""
        roles = {folder: notation.role(folder.name) for folder in folders}
        named = [folder for folder in folders if roles[folder]]
        others = [folder for folder in folders if not roles[folder]]
        flat = any(self._storage.images(folder, nested=False) for folder in others)
        deep = [folder for folder in named if self._storage.subfolders(folder)]
        # Classes may be called `train` or `valid`, beside others that hold images themselves.
        if named and (not flat or any(roles[folder] == "train" for folder in deep)):
            self._ignored.folders += [str(folder) for folder in others]
            return named
        if flat or not others:
            return []
        below = {folder: self._storage.subfolders(folder) for folder in others}
        inner = {name.name for found in below.values() for name in found}
        if len(others) == 1 and len(inner) > 1:
            raise InputError(
                f"{self._path} holds one folder only, {others[0].name}, which holds "
                f"{listing.some(sorted(inner))}: if these are the classes or splits, give "
                f"--config.data.name=folder:{others[0]}"
            )
        if len(inner) < 2:
            return []
        names = listing.some([folder.name for folder in others])
        self._left_out.append(f"its folders are read as splits, as they hold no images: {names}")
        return others

    def _read_split(self, folder: Path) -> Files:
        tables = self._storage.tables(folder)
        table = next((path for path in tables if path.name.endswith("_annotations.txt")), None)
        if table is not None and self._storage.is_folder(folder / "images"):
            files = self._storage.images(folder / "images", self._ignored)
            if files:
                return self._annotated(table, files)
        loose = self._storage.images(folder, nested=False)
        classes = self._classes(folder)
        if loose and classes:
            self._ignored.loose += loose
        return classes

    def _classes(self, folder: Path) -> Files:
        classes: Files = {}
        for child in self._storage.subfolders(folder, self._ignored):
            name = unicodedata.normalize("NFC", child.name)
            if name in classes:
                raise InputError(f"{folder} has two folders that are both called {name}: join them")
            classes[name] = self._storage.images(child, self._ignored)
        return classes

    def _annotated(self, table: Path, files: list[str]) -> Files:
        """Returns the images of a split whose labels are in a table, as Tiny ImageNet's `val`."""
        classes: Files = {}
        present = {Path(file).name: file for file in files}
        for number, line in enumerate(self._lines(table), 1):
            name, _, rest = line.strip().partition("\t")
            label = rest.partition("\t")[0]
            if not label or name not in present:
                raise InputError(
                    f"{table} line {number}: expected the name of an image in {table.parent / 'images'} "
                    f"and a class, separated by a tab; found {line[:80]!r}"
                )
            classes.setdefault(label, []).append(present.pop(name))
        if present:
            self._left_out.append(
                f"{len(present)} images in {table.parent.name} have no line in {table.name}, not used"
            )
        return {label: sorted(found) for label, found in classes.items()}

    def _lines(self, table: Path) -> list[str]:
        try:
            return self._storage.read(str(table)).decode("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{table} cannot be read: {error}") from error

    def _index(self, files: dict[str, Files]) -> None:
        """Takes the files of every split that has labels."""
        if not any(found for classes in files.values() for found in classes.values()):
            raise InputError(self._no_images(files))
        reference = reference_split(files)
        files[reference] = self._readable(files[reference])
        class_folders = sorted(files[reference])
        problems = [
            f"{'' if reference == 'all' else reference + '/'}{name} has no images"
            for name, found in files[reference].items()
            if not found
        ] or ([] if class_folders else [f"{reference} has no class folders"])
        labelled, advice = {}, ""
        for split, classes in files.items():
            extra = sorted(name for name in set(classes) - set(class_folders) if classes[name])
            if split != reference and self._has_no_labels(classes, extra):
                self._left_out.append(self._why_left_out(split, classes))
            else:
                labelled[split] = classes if split == reference else self._readable(classes)
                problems += not_classes(split, extra, reference, class_folders)
                if extra:
                    advice = expected_classes("the folders", reference, class_folders)
        if len(class_folders) == 1 and files[reference][class_folders[0]]:
            raise InputError(self._one_class(reference, class_folders[0]))
        if problems:
            more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
            ignored = self._ignored.describe()
            if any(not found for found in files[reference].values()):
                more += "; remove empty folders or add images"
            reason = f"; ignored {ignored}" if ignored else ""
            raise InputError(
                f"{self._path}: "
                + "; ".join(problems[:10])
                + more
                + advice
                + reason
                + self._skipped()
            )
        self._use(labelled, class_folders, self._words(class_folders))

    def _words(self, class_folders: list[str]) -> list[str]:
        """Returns what classes are called in `words.txt`; as their folders where it does not say it of all."""
        tables = self._storage.tables(self._path)
        table = next((path for path in tables if path.name == _WORDS), None)
        if table is None:
            return class_folders
        pairs = (line.strip().partition("\t") for line in self._lines(table))
        words = {folder: name.strip() for folder, _, name in pairs}
        names = [words.get(folder, "") for folder in class_folders]
        if not all(names):
            return class_folders
        self._left_out.append(f"classes are called as {_WORDS} says")
        counts = collections.Counter(names)
        # Two kinds of crane.
        return [
            name if counts[name] == 1 else f"{name} ({folder})"
            for name, folder in zip(names, class_folders, strict=True)
        ]

    def _has_no_labels(self, classes: Files, extra: list[str]) -> bool:
        if not any(classes.values()):
            return True
        return len(classes) == 1 and bool(extra) and extra[0].lower() in _NO_CLASS

    def _why_left_out(self, split: str, classes: Files) -> str:
        loose = len(self._storage.images(self._path / split, nested=False))
        if loose:
            return (
                f"{split} has no class folders: its {loose} images have no labels and are not used"
            )
        for name, found in classes.items():
            if found:
                return (
                    f"{split} has no labels: {split}/{name}, which is not a class, holds all its "
                    f"{len(found)} images; they are not used"
                )
        return f"{split} has no images"

    def _no_images(self, files: dict[str, Files]) -> str:
        direct = self._storage.images(self._path, self._ignored, nested=False)
        ignored = self._ignored.describe()
        if direct:
            return (
                f"{self._path} holds {len(direct)} images itself, such as {Path(direct[0]).name}; "
                f"expected one folder for each class: {self._path}/CLASS/*, or {self._path}/train/CLASS/*"
            )
        return "; ".join(
            [
                f"{self._path} has no images in PATH/CLASS/* nor in PATH/SPLIT/CLASS/*",
                *(self._why_left_out(split, files[split]) for split in files if split != "all"),
                *([f"ignored {ignored}"] if ignored else []),
                f"names of images end in {', '.join(listing.image_endings())}",
            ]
        )

    def _one_class(self, reference: str, name: str) -> str:
        place = self._path if reference == "all" else self._path / reference
        beside = self._storage.images(place, nested=False)
        ignored = self._ignored.describe()
        return (
            f"{place} has one class only, {name!r}; expected two or more class folders, as any network "
            "is right on one class"
            + (f"; {len(beside)} images are beside {name!r} in no class folder" if beside else "")
            + (f"; ignored {ignored}" if ignored else "")
        )


def _no_folder(path: Path) -> str:
    if os.path.isfile(path) and path.suffix.lower() in _OTHER_ARCHIVES:
        return (
            f"{path} is an archive of a kind that is not read ({', '.join(archive.ENDINGS)} are): unpack it "
            f"and give the folder, such as folder:{path.stem}"
        )
    if os.path.isfile(path) and path.suffix.lower() in (".csv", ".tsv"):
        return f"{path} is a table: give --config.data.name=csv:{path}"
    kind = "is a file" if os.path.isfile(path) else "does not exist or cannot be reached"
    return f"{path} {kind}; folder:PATH needs a folder with PATH/CLASS/* or PATH/SPLIT/CLASS/*"
