"""Of images that several processes share, each keeps what it reads; any other is right too."""

import numpy as np
import pytest

from tl_jax.data import loading, records, shared
from tl_jax.data.decoded import DecodedCache
from tl_jax.data.split import InMemorySplit
from tl_jax.errors import InputError

IMAGES = np.arange(10 * 2 * 2 * 3, dtype=np.uint8).reshape(10, 2, 2, 3)


class Encoded:
    """Ten images, and which were decoded, in turn."""

    image_shape, decoding_bytes, bytes_in_memory = (2, 2, 3), 7, 5

    def __init__(self, rows=None, decoded=None):
        self.rows = np.arange(10) if rows is None else rows
        self.decoded = [] if decoded is None else decoded
        self.images = None

    def __len__(self):
        return len(self.rows)

    def gather(self, indices):
        if self.images is not None:
            return self.images[indices]
        rows = self.rows[indices]
        self.decoded.append(rows.tolist())
        return IMAGES[rows]

    def subset(self, indices):
        return Encoded(self.rows[indices], self.decoded)

    def in_memory(self, cache=None):
        kept = Encoded(self.rows, self.decoded)
        kept.images = self.gather(np.arange(len(self)))
        self.decoded.append(cache)
        return kept

    def file(self, index):
        return f"{self.rows[index]}.png"

    def fingerprint(self):
        return str(self.rows.tolist())


def test_images_that_are_kept_are_decoded_once_and_others_on_access():
    encoded = Encoded()
    pixels = shared.SharedPixels(encoded, cache="disk")
    assert pixels.shape == (10, 2, 2, 3)
    # It is not said yet that any is not kept.
    assert (pixels.num_bytes, pixels.bytes_in_memory, pixels.decoding_bytes) == (120, 0, 7)
    pixels.keep(np.array([8, 2, 5, 2]))
    assert encoded.decoded == [[2, 5, 8], None]  # nothing for the disk: it is a part
    assert (pixels.num_bytes, pixels.bytes_in_memory) == (3 * 12, 5)
    pixels.keep(np.array([2, 5, 8]))
    np.testing.assert_array_equal(pixels.get(np.array([5, 2, 2])), IMAGES[[5, 2, 2]])
    np.testing.assert_array_equal(pixels.get(np.arange(0)), IMAGES[:0])
    assert encoded.decoded == [[2, 5, 8], None]
    rows = np.array([9, 2, 0, 8])
    np.testing.assert_array_equal(pixels.get(rows), IMAGES[rows])
    assert encoded.decoded[2:] == [[9, 0]]
    np.testing.assert_array_equal(pixels.get(), IMAGES)
    assert pixels.file(3) == "3.png"
    assert pixels.fingerprint(None) == encoded.fingerprint()
    assert pixels.fingerprint(np.array([4])) == "[4]"


def test_a_process_that_reads_all_images_keeps_them_on_disk_too():
    encoded = Encoded()
    pixels = shared.SharedPixels(encoded, cache="disk")
    pixels.keep(np.arange(10))
    assert encoded.decoded == [list(range(10)), "disk"]
    pixels.keep(np.arange(0))
    assert (pixels.num_bytes, pixels.bytes_in_memory) == (0, 0)
    np.testing.assert_array_equal(pixels.get(np.array([1])), IMAGES[[1]])
    assert encoded.decoded[2:] == [[1]]


class PngRecords(records.JoinedRecords):
    """Ten PNG files in memory, one of which may be broken."""

    def __init__(self, broken=()):
        from tl_jax.data.images import to_png

        self._files = [to_png(image) for image in IMAGES]
        for place in broken:
            self._files[place] = self._files[place][:-30]
        self.class_names, self.declared_size = ("a", "b"), (2, 2)

    def __len__(self):
        return len(self._files)

    def read(self, indices):
        return [self._files[index] for index in indices], self.labels(indices)

    def labels(self, indices):
        return np.asarray(indices) % 2

    def describe(self, index):
        return f"image {index}"

    def file(self, index):
        return ""

    def fingerprint(self, *, labelled=False):
        return "png"


def split_of(broken=()):
    return records.LazySplit(PngRecords(broken), np.arange(10), 0, "train")


def test_a_split_whose_images_are_shared_is_that_split(tmp_path):
    split = split_of().shared(DecodedCache(tmp_path))
    assert split.is_shared and not split_of().in_memory().is_shared
    assert split.labels.tolist() == [0, 1] * 5
    part = split.subset(np.array([9, 4, 1]))
    assert part.is_shared
    assert part.fingerprint() == split_of().subset(np.array([9, 4, 1])).fingerprint()
    split.keep(np.array([4]))
    np.testing.assert_array_equal(part.images, IMAGES[[9, 4, 1]])
    np.testing.assert_array_equal(part.gather(np.array([1])), IMAGES[[4]])
    np.testing.assert_array_equal(split.images, IMAGES)
    assert split.whole_bytes == 12
    assert not list(tmp_path.iterdir())
    split.keep(np.arange(10))
    np.testing.assert_array_equal(split.images, IMAGES)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_kept_and_cannot_be_decoded_is_an_error():
    split = split_of(broken=[7]).shared()
    split.keep(np.arange(5))
    loading.wait_for({"train": split})
    split.keep(np.arange(5, 10))
    with pytest.raises(InputError, match="image 7"):
        loading.wait_for({"train": split})


def test_other_images_are_kept_as_they_are():
    split = InMemorySplit(IMAGES, np.zeros(10, int), ("a",))
    split.keep(np.array([1]))
    assert not split.is_shared
    np.testing.assert_array_equal(split.images, IMAGES)


@pytest.mark.parametrize("is_shared", [False, True])
def test_splits_are_loaded_shared_where_that_is_asked_for(is_shared):
    class Source:
        name, notes, split_names, ordered = "png", (), ("train", "test"), False

        def split(self, name):
            return split_of()

    decoding = loading.Decoding(shared=is_shared)
    splits = loading.load_splits(Source(), loading.Selection(), decoding)
    assert [split.is_shared for split in splits.values()] == [is_shared] * 2
