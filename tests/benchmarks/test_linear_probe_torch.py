"""The two forms of PyTorch's probe train the same layer from the same images."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import linear_probe_torch  # noqa: E402
from tl_jax.data.split import InMemorySplit  # noqa: E402


@pytest.fixture
def splits():
    """Returns 150 images of two colours and noise: more than a batch, and a part of one."""
    random = np.random.default_rng(0)

    def split(name, count):
        labels = random.integers(0, 2, count).astype(np.int32)
        images = random.integers(0, 120, (count, 8, 8, 3)) + 120 * labels[:, None, None, None]
        return InMemorySplit(images.astype(np.uint8), labels, ("dark", "light"), name)

    return {"train": split("train", 150), "validation": split("v", 20), "test": split("t", 30)}


def test_features_once_trains_what_the_tutorial_trains(splits, monkeypatch):
    # Forked workers warn in a process with threads; which process loads an image changes nothing.
    loader = torch.utils.data.DataLoader
    monkeypatch.setattr(
        torch.utils.data,
        "DataLoader",
        lambda *args, num_workers, **options: loader(*args, num_workers=0, **options),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [
            linear_probe_torch.probe(splits, form, 2, shuffle=False)
            for form in linear_probe_torch.FORMS
        ]
    tutorial, once = found
    assert tutorial["weight_norm"] == pytest.approx(once["weight_norm"], rel=1e-5)
    for name in ("validation_top1", "test_top1", "epochs"):
        assert tutorial[name] == once[name]
    assert once["test_top1"] > 0.9


def test_an_epoch_draws_every_image_once():
    features, labels = torch.arange(300.0)[:, None], torch.arange(300)
    torch.manual_seed(0)
    drawn = [rows for _, rows in linear_probe_torch.draw(features, labels, shuffle=True)]
    assert [len(rows) for rows in drawn] == [128, 128, 44]
    joined = torch.cat(drawn)
    assert not torch.equal(joined, labels)
    assert torch.equal(joined.sort()[0], labels)
