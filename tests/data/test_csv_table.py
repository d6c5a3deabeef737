import numpy as np
import pytest

from tl_jax.data import Decoding, Selection, csv_table, load_splits
from tl_jax.errors import InputError


@pytest.fixture
def table(tmp_path, write_image):
    """Returns a function that writes images 0.png to 19.png, whose level is their number, and a table."""
    for number in range(20):
        write_image(tmp_path / "images" / f"{number}.png", number)

    def write(*lines: str, name: str = "table.csv", encoding: str = "utf-8"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding=encoding)
        return f"csv:{tmp_path / name}"

    return write


def rows(separator: str = ",") -> list[str]:
    """Rows of all images, the first ten cats."""
    return [f"images/{n}.png{separator}{'cat' if n < 10 else 'dog'}" for n in range(20)]


def levels(split) -> list[int]:
    return split.gather(np.arange(len(split)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        (["path,label", *rows()], "utf-8"),
        (rows(), "utf-8"),
        (["Filename;id;Class", *(row.replace(";", ";7;") for row in rows(";"))], "utf-8-sig"),
        (["label\timage", *("\t".join(row.split(",")[::-1]) for row in rows())], "utf-8"),
        (["", *rows(", "), ""], "utf-8"),
    ],
    ids=["names", "no names", "semicolons and a mark", "tabs, turned", "spaces"],
)
def test_tables_as_people_write_them(table, lines, encoding):
    found = load_splits(table(*lines, encoding=encoding))
    assert found["train"].class_names == ("cat", "dog")
    assert np.bincount(found["train"].labels).tolist() == [8, 8]
    assert sorted(levels(found["train"]) + levels(found["test"])) == list(range(20))
    for split in found.values():
        assert [level >= 10 for level in levels(split)] == (split.labels == 1).tolist()


def test_a_fifth_is_the_one_of_the_same_files_in_folders(table, tmp_path, write_image):
    for number in range(20):
        write_image(
            tmp_path / "folders" / ("cat" if number < 10 else "dog") / f"{number}.png", number
        )
    one, other = load_splits(table(*rows())), load_splits(f"folder:{tmp_path / 'folders'}")
    assert levels(one["test"]) == levels(other["test"])
    assert one["train"].fingerprint() == other["train"].fingerprint()


def test_integers_are_ordered_as_numbers(table):
    found = load_splits(table(*(f"images/{n}.png,{n % 11}" for n in range(20))))
    assert found["train"].class_names == tuple(map(str, range(11)))
    assert all(
        level % 11 == label
        for level, label in zip(levels(found["train"]), found["train"].labels, strict=True)
    )


def test_a_column_of_splits(table):
    lines = [f"{row},{('train', 'VAL', 'test')[n % 3]}" for n, row in enumerate(rows())]
    found = load_splits(table("path,label,split", *lines), Selection(validation="val"))
    assert {role: sorted(levels(split)) for role, split in found.items()} == {
        "train": list(range(0, 20, 3)), "validation": list(range(1, 20, 3)), "test": list(range(2, 20, 3)),
    }  # fmt: skip


def test_splits_of_one_meaning_are_one(table):
    names = ("train", "Train", "training", "test", "TEST")
    lines = [f"{row},{names[n % 5]}" for n, row in enumerate(rows())]
    found = load_splits(table("path,label,split", *lines))
    assert {role: len(split) for role, split in found.items()} == {"train": 12, "test": 8}
    assert [note.partition(": ")[2] for note in found.notes] == [
        "splits 'train' and 'Train' and 'training' are read as one, train",
        "splits 'test' and 'TEST' are read as one, test",
    ]


@pytest.mark.parametrize("split", ["", ",train"])
def test_a_class_of_which_nothing_can_be_read_is_an_error(table, tmp_path, split):
    for number in range(10):
        (tmp_path / "images" / f"{number}.png").write_text("no image")
    names = "path,label" + ",split" * bool(split)
    lines = [f"{row}{split}" for row in [*rows(), "images/0.png,cat", "images/11.png,dog"]]
    lines.append(f"images/../images/19.png,dog{split}")
    (tmp_path / "images/20.png").write_bytes((tmp_path / "images/19.png").read_bytes())
    with pytest.raises(InputError, match=r"cat has no images.*left out as they cannot be read"):
        load_splits(
            table(names, *lines, f"images/20.png,owl{split}"), decoding=Decoding(unreadable="skip")
        )


def test_labels_of_one_number_are_named(table):
    found = load_splits(
        table(*(f"images/{n}.png,{('1', '01', '2', '10')[n % 4]}" for n in range(20)))
    )
    assert found["train"].class_names == ("01", "1", "2", "10")
    (note,) = found.notes
    assert "differ in case, spaces or leading zeros only: '01' and '1'" in note


def test_on_access_equals_in_memory(table):
    name = table(*rows())
    access = load_splits(name, decoding=Decoding(max_memory_bytes=0))["train"]
    assert levels(access) == levels(load_splits(name)["train"])


def test_all_that_is_wrong_with_a_table_is_one_message(table, tmp_path):
    lines = [
        *rows(),
        "images/0.png,dog",
        "images/30.png,cat",
        "images/4.png,",
        ",cat",
        "images/1.png,cat",
    ]
    with pytest.raises(InputError) as raised:
        load_splits(table("path,label", *lines))
    message = str(raised.value)
    for part in (
        "row 22: images/0.png is 'dog' here and 'cat' in row 2",
        f"{tmp_path / 'images/30.png'} does not exist",
        "row 24 has no label",
        "row 25 has no path",
    ):
        assert part in message
    assert len(message.splitlines()) == 5  # a row that is said twice is no error
    again = load_splits(table(*rows(), "images/1.png,cat"))
    assert "1 rows say again what another row says" in again.notes[0]


def test_missing_files_are_images_that_cannot_be_read(table):
    name = table(*rows(), "images/30.png,cat", "images/31.png,dog")
    with pytest.raises(InputError, match="2 images cannot be used") as raised:
        load_splits(name)
    assert "30.png" in str(raised.value) and "31.png" in str(raised.value)
    found = load_splits(name, decoding=Decoding(unreadable="skip"))
    assert len(found["train"]) + len(found["test"]) == 20 and len(found.skipped) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name_of_it,what", *rows()], r"first row is .*name_of_it.*expected the names of columns"),
        (["path,label,split", *(f"{row},train" for row in rows()), "images/0.png,cat,test"],
         "is in 'test' here and in 'train' in row 2"),
        (["path,label,split", *(f"{row},train" for row in rows()[:19]), "images/19.png,dgo,test"],
         r"test/dgo is not a class of train \(nearest: dog\)"),
        (["path,label,split", *(f"{row},train" for row in rows()), "images/19.png,dog,"], "row 22 has no split"),
        ([f"images/{n}.png,cat" for n in range(20)], "all has 1 class; expected two or more"),
        (["", ""], "has no rows"),
        (["path,label", ""], "has no rows of images; expected path,label"),
    ],
    ids=["no column", "two splits", "another class", "no split", "one class", "empty", "names alone"],
)  # fmt: skip
def test_tables_that_are_refused(table, lines, message):
    with pytest.raises(InputError, match=message):
        load_splits(table(*lines))


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        csv_table.CsvTable(tmp_path / "none.csv", 0)
    (tmp_path / "photo.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read as a table"):
        csv_table.CsvTable(tmp_path / "photo.csv", 0)
    with pytest.raises(InputError, match="cannot be read as a table"):
        csv_table.CsvTable(tmp_path, 0)


def test_paths_of_windows_are_told(table):
    lines = [*rows()[:18], *(row.replace("/", "\\") for row in rows()[18:])]
    with pytest.raises(InputError) as raised:
        load_splits(table("path,label", *lines))
    message = str(raised.value)
    assert r"row 20: images\18.png is not there, and looks like a path of Windows" in message
    assert message.endswith("(2 of 20 rows do); expected / between folders, as in images/18.png")


def test_a_table_in_another_encoding_is_to_be_saved_as_utf8(table):
    with pytest.raises(InputError, match=r"not in UTF-8 \(.* at byte .*\); save it as UTF-8"):
        load_splits(table("path,label", *rows(), "images/1.png,café", encoding="latin-1"))
