import pickle

import numpy as np
import pytest

from tl_jax import files
from tl_jax.data import cifar
from tl_jax.errors import InputError


@pytest.mark.parametrize("form", ["binary", "python"])
def test_both_formats_hold_the_same(mini_cifar10, form):
    content = cifar.read(getattr(mini_cifar10, form), "cifar10")
    np.testing.assert_array_equal(content.images["train"], mini_cifar10.train_images)
    np.testing.assert_array_equal(content.images["test"], mini_cifar10.test_images)
    np.testing.assert_array_equal(content.labels["train"]["label"], mini_cifar10.train_labels)
    assert content.label_names == {"label": [f"class{number}" for number in range(10)]}


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100_has_coarse_and_fine_labels(mini_cifar100, form):
    content = cifar.read(getattr(mini_cifar100, form), "cifar100")
    np.testing.assert_array_equal(content.labels["test"]["label"], np.arange(100))
    np.testing.assert_array_equal(content.labels["test"]["coarse_label"], np.arange(100) % 20)
    assert {key: len(names) for key, names in content.label_names.items()} == {
        "coarse_label": 20,
        "label": 100,
    }


def test_a_binary_record_is_label_then_red_green_blue_rows(tmp_path, write_archive):
    # Pixel (row 1, column 2): byte 34 of each plane of 1,024.
    row = np.zeros(3073, np.uint8)
    row[[0, 1 + 34, 1 + 1024 + 34, 1 + 2048 + 34]] = 7, 10, 20, 30
    files = {f"x/data_batch_{number}.bin": row.tobytes() for number in range(1, 6)}
    files |= {"x/test_batch.bin": row.tobytes(), "x/batches.meta.txt": b"\n".join([b"n"] * 10)}
    content = cifar.read(write_archive(tmp_path / "a.tar.gz", files), "cifar10")
    assert content.images["test"][0, 1, 2].tolist() == [10, 20, 30]
    assert content.images["test"].sum() == 60
    assert content.labels["test"]["label"].tolist() == [7]


def test_a_wrong_archive_is_refused_with_both_checksums(mini_cifar10):
    found = files.digest(mini_cifar10.binary, "md5")
    with pytest.raises(InputError, match=f"{found}, expected c32a1d4a.* or c58f3010"):
        cifar.verify(mini_cifar10.binary, "cifar10")
    with pytest.raises(InputError, match=f"sha256 .*, expected {'0' * 64}"):
        cifar.verify(mini_cifar10.binary, "cifar10", "0" * 64)
    cifar.verify(mini_cifar10.binary, "cifar10", found)
    cifar.verify(
        mini_cifar10.binary, "cifar10", files.digest(mini_cifar10.binary, "sha256").upper()
    )


def test_the_other_data_set_is_called_by_its_name(tmp_path, monkeypatch):
    path = tmp_path / "renamed"
    path.write_bytes(b"x")
    other = cifar.Archive("cifar100", "cifar-100-python.tar.gz", files.digest(path, "md5"))
    monkeypatch.setattr(cifar, "ARCHIVES", (*cifar.ARCHIVES[:2], other))
    with pytest.raises(InputError, match=r"\(cifar-100-python\.tar\.gz\), expected c32a1d4a"):
        cifar.verify(path, "cifar10")
    cifar.verify(path, "cifar100")


def test_published_sums():
    sums = {archive.filename: (archive.md5, archive.sha256) for archive in cifar.ARCHIVES}
    assert sums["cifar-10-python.tar.gz"][0] == "c58f30108f718f92721af3b95e74349a"
    assert sums["cifar-100-binary.tar.gz"][0] == "03b5dce01913d631647c71ecec9e9cb8"
    assert {len(md5) for md5, _ in sums.values()} == {32}
    assert {len(sha256) for _, sha256 in sums.values() if sha256} == {64}


def test_sums_agree_with_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = __import__("pathlib").Path(tfds.__file__).parent / "url_checksums"
    for dataset in ("cifar10", "cifar100"):
        (line,) = (folder / f"{dataset}.txt").read_text().splitlines()
        url, _, sha256, filename = line.split("\t")
        (known,) = [archive for archive in cifar.ARCHIVES if archive.filename == filename]
        assert (known.url, known.sha256) == (url, sha256)


class _Harmful:
    def __reduce__(self):
        return print, ("run while unpickling",)


def _python_archive(test_batch: object) -> dict[str, bytes]:
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}
    files = {f"x/data_batch_{number}": pickle.dumps(batch, 2) for number in range(1, 6)}
    meta = pickle.dumps({b"label_names": [b"n"] * 10}, 2)
    return {**files, "x/batches.meta": meta, "x/test_batch": pickle.dumps(test_batch, 2)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_Harmful(), "asks for .*print, which is refused"),
        ([1, 2], "is a list, expected dict"),
        ({b"labels": [0]}, "data"),
        ({b"data": np.zeros((1, 3072)), b"labels": [0]}, "pixels are float64"),
        (
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]},
            "label 10, expected less than 10",
        ),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 images, 1 of label"),
    ],
    ids=["code", "list", "no data", "float", "label", "lengths"],
)
def test_damaged_and_harmful_pickles_are_refused(tmp_path, write_archive, capsys, content, message):
    path = write_archive(tmp_path / "a.tar.gz", _python_archive(content))
    with pytest.raises(
        InputError, match=r"a\.tar\.gz is damaged or no archive of cifar10: .*" + message
    ):
        cifar.read(path, "cifar10")
    assert "run while unpickling" not in capsys.readouterr().out


def test_what_is_no_archive_is_refused(tmp_path, write_archive, mini_cifar10, mini_cifar100):
    text = tmp_path / "text.tar.gz"
    text.write_text("no archive")
    with pytest.raises(InputError, match="not a readable"):
        cifar.read(text, "cifar10")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(mini_cifar10.binary.read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable"):
        cifar.read(cut, "cifar10")
    with pytest.raises(InputError, match="no archive of cifar10: it has none of"):
        cifar.read(write_archive(tmp_path / "a.tar.gz", {"x/readme": b""}), "cifar10")
    with pytest.raises(InputError, match="no archive of cifar100"):
        cifar.read(mini_cifar10.binary, "cifar100")
