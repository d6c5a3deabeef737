"""Tables of image files: a CSV file whose rows are a path, a label and, if it likes, a split."""

import csv
import os
from pathlib import Path

from tl_jax import console
from tl_jax.data import listing, notation
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

# What the columns are called in the wild, in lower case.
_PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
_LABELS = ("label", "class", "category", "class_name", "target", "labels")
_SPLITS = ("split", "subset", "set", "fold")
_DELIMITERS = (",", ";", "\t")
_SHOWN = 20


class CsvTable(FileSource):
    r"""Images that a table lists: `path,label` or `path,label,split`.

    Columns are found by the names in the first row (`path`, `file`, `filename`, `image`; `label`, `class`;
    `split`), in any order and beside others; without such a row they are the first three. They are separated
    by commas, semicolons or tabs. Paths are relative to the folder of the table. Labels are names or integers;
    classes are numbered in the order of the names, or of the numbers where all labels are integers. Splits are
    `train`, `val` and `test`, or what they are called; without them `test` is a fifth of every class.

    Args:
        path: of the table, in UTF-8.
        image_size: see `records.LazySplit`.
        skip: see `FileSource`.
        cache_dir: likewise.

    Raises:
        InputError: listing rows without a path, a label or a split, images with two labels or in two splits,
            and, beside these, missing files; or if it is no such table.
    """

    def __init__(
        self,
        path: Path,
        image_size: int,
        skip: Skip | None = None,
        cache_dir: Path | None = None,
    ):
        super().__init__(f"csv:{path}", listing.Disk(), path.parent, image_size, skip, cache_dir)
        self._path = path
        self._problems: list[str] = []
        self._repeated = 0
        # Of each part that a split plays, the names that rows give it, in their order.
        self._spellings: dict[str, list[str]] = {}
        rows = self._rows_of(path)
        self._refuse_backslashes(rows)
        files = self._files(rows)
        if self._problems:
            # Missing files alone are images that cannot be read, and can be left out.
            self._problems += self._missing(files)
            more = [f"and {len(self._problems) - _SHOWN} more"] * (len(self._problems) > _SHOWN)
            raise InputError("\n  ".join([f"{path}:", *self._problems[:_SHOWN], *more]))
        if not files:
            raise InputError(f"{path} has no rows of images; expected path,label in each")
        class_names = self._index(files)
        lines = similar_names(class_names)
        lines += [
            f"splits {' and '.join(map(repr, names))} are read as one, {names[0]}"
            for names in self._spellings.values()
            if len(names) > 1
        ]
        if self._repeated:
            lines.append(f"{self._repeated} rows say again what another row says, and count once")
        self.notes = tuple(f"{self.name}: {line}" for line in lines)

    def _rows_of(self, path: Path) -> list[tuple[int, str, str, str | None]]:
        """Returns the number of a row, its path, label and split; None for no column of splits."""
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                delimiter = max(_DELIMITERS, key=first.count)
                reader = csv.reader(file, delimiter=delimiter)
                rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist; csv:PATH needs a table of images") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} cannot be read as a table: it is not in UTF-8 ({error.reason} at byte {error.start:,}); "
                "save it as UTF-8 (spreadsheet programs call it CSV UTF-8)"
            ) from error
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as a table: {error}") from error
        rows = [(number, row) for number, row in rows if any(row)]
        if not rows:
            raise InputError(f"{path} has no rows; expected path,label or path,label,split")
        names = [cell.lower() for cell in rows[0][1]]
        columns = [
            next((names.index(name) for name in known if name in names), None)
            for known in (_PATHS, _LABELS, _SPLITS)
        ]
        if columns[0] is None or columns[1] is None:
            # Without a row of names.
            width = len(rows[0][1])
            if width not in (2, 3) or self._is_header(rows[0][1]):
                raise InputError(
                    f"{path}: its first row is {rows[0][1]}; expected the names of columns, of which one is "
                    f"path (or {', '.join(_PATHS[1:4])}) and one label (or {', '.join(_LABELS[1:3])}), or "
                    "rows of a path, a label and perhaps a split"
                )
            columns = [0, 1, 2 if width == 3 else None]
        else:
            rows = rows[1:]

        def cell(row: list[str], column: int | None) -> str:
            return row[column] if column is not None and column < len(row) else ""

        return [
            (
                number,
                cell(row, columns[0]),
                cell(row, columns[1]),
                None if columns[2] is None else cell(row, columns[2]),
            )
            for number, row in rows
        ]

    def _refuse_backslashes(self, rows: list[tuple[int, str, str, str | None]]) -> None:
        found = [
            (number, name)
            for number, name, *_ in rows
            if "\\" in name and not os.path.isfile(self._path.parent / name)
        ]
        if found:
            raise InputError(
                f"{self._path} row {found[0][0]}: {found[0][1]} is not there, and looks like a path of Windows "
                f"({len(found):,} of {console.count(len(rows), 'row')} do); expected / between folders, as in "
                f"{found[0][1].replace(chr(92), '/')}"
            )

    def _is_header(self, row: list[str]) -> bool:
        """Returns whether a first row of unknown names is one of names: its first cell is no image."""
        ending = os.path.splitext(row[0])[1].lower()
        return ending not in listing.image_endings() and not os.path.isfile(
            self._path.parent / row[0]
        )

    def _files(self, rows: list[tuple[int, str, str, str | None]]) -> dict[str, Files]:
        """Returns the files by split and class; notes what is wrong with rows."""
        files: dict[str, Files] = {}
        seen: dict[str, tuple[int, str, str | None]] = {}
        for number, name, label, split in rows:
            absent = [
                what
                for what, value in (("path", name), ("label", label), ("split", split))
                if value == ""
            ]
            if absent:
                self._problems.append(f"row {number} has no {' and no '.join(absent)}")
                continue
            split = None if split is None else self._spelled(split)
            path = os.path.normpath(self._path.parent / os.path.expanduser(name))
            if path in seen:
                earlier, other, where = seen[path]
                if other != label:
                    self._problems.append(
                        f"row {number}: {name} is {label!r} here and {other!r} in row {earlier}"
                    )
                elif where != split:
                    self._problems.append(
                        f"row {number}: {name} is in {split!r} here and in {where!r} in row {earlier}"
                    )
                else:
                    self._repeated += 1
                continue
            seen[path] = number, label, split
            files.setdefault("all" if split is None else split, {}).setdefault(label, []).append(
                path
            )
        return {
            split: {label: sorted(found) for label, found in classes.items()}
            for split, classes in files.items()
        }

    def _spelled(self, split: str) -> str:
        """Returns what a split is called where rows call it by several names, such as `train` and `Train`."""
        names = self._spellings.setdefault(notation.role(split) or split, [])
        if split not in names:
            names.append(split)
        return names[0]

    def _missing(self, files: dict[str, Files]) -> list[str]:
        paths = [path for classes in files.values() for found in classes.values() for path in found]
        return [f"{path} does not exist" for path in sorted(paths) if not os.path.isfile(path)]

    def _index(self, files: dict[str, Files]) -> list[str]:
        """Takes the files of every split; returns the names of the classes."""
        reference = reference_split(files)
        for split in files:
            files[split] = self._readable(files[split])
        class_names = sorted(files[reference])
        if all(map(_is_integer, class_names)):
            class_names.sort(key=int)  # stable: of `1` and `01` the latter is the first
        # Each was in a row: its images were left out.
        problems = [
            f"{'' if reference == 'all' else reference + '/'}{name} has no images"
            for name in class_names
            if not files[reference][name]
        ]
        advice = ""
        for split, classes in files.items():
            extra = sorted(name for name in set(classes) - set(class_names) if classes[name])
            problems += not_classes(split, extra, reference, class_names)
            if extra:
                advice = expected_classes("the labels", reference, class_names)
        if len(class_names) < 2:
            problems.append(
                f"{reference} has {len(class_names)} class{'es' * (not class_names)}; expected two or more, "
                "as any network is right on one class"
            )
        if problems:
            raise InputError(
                f"{self._path}: " + "; ".join(problems[:_SHOWN]) + advice + self._skipped()
            )
        self._use(files, class_names, class_names)
        return class_names


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
