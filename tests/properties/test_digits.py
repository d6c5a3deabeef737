"""The digits of train and test together are all digits, each once."""

from collections import Counter

from tl_jax.data import arrays


def test_train_and_test_share_nothing_and_leave_nothing_out():
    """Pictures that occur twice in the data set are counted as often as they are stored."""
    stored, labels = arrays._stored_digits()

    def counted(images, labels):
        return Counter(
            (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
        )

    small = [arrays.Digits().split(name) for name in ("train", "test")]
    found = sum((counted(split.images[:, ::4, ::4, 0], split.labels) for split in small), Counter())
    grey = (stored * (255 / 16)).round().astype("uint8")
    assert found == counted(grey, labels)
