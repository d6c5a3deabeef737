"""The network that is trained from scratch in PyTorch is what its description says."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.accelerator import airbench  # noqa: E402
from tl_jax.data.split import InMemorySplit  # noqa: E402


def test_the_first_layer_whitens():
    torch.manual_seed(0)
    mixing = torch.randn(12, 12)
    patches = (torch.randn(5000, 12) @ mixing).reshape(-1, 3, 2, 2)
    net = airbench.Network(patches, 10)
    assert not net.whiten.weight.requires_grad
    with torch.no_grad():
        found = torch.nn.functional.conv2d(patches - patches.mean(0), net.whiten.weight).flatten(1)
    assert found.shape == (5000, 24)
    covariance = found[:, :12].T @ found[:, :12] / len(found)
    torch.testing.assert_close(covariance, torch.eye(12), atol=0.05, rtol=0)
    torch.testing.assert_close(found[:, 12:], -found[:, :12])


def test_convolutions_begin_as_identities():
    made = airbench._convolution(4, 8)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(made(x)[:, :4], x)


def test_images_are_shifted_and_mirrored():
    images = torch.arange(36.0).reshape(1, 1, 6, 6).repeat(64, 1, 1, 1)
    mirrored = torch.arange(64) % 2 == 0
    torch.manual_seed(0)
    shown = airbench._augmented(images, mirrored)
    rows = shown[:, 0, 2]
    steps = rows[:, 1:] - rows[:, :-1]
    # In the middle, where no reflection reaches, levels fall where the image is mirrored and rise elsewhere.
    assert (steps[mirrored][:, 2] == -1).all() and (steps[~mirrored][:, 2] == 1).all()
    assert len(set(shown[~mirrored][:, 0, 3, 3].tolist())) > 5
    assert set(shown.unique().tolist()) <= set(range(36))


def test_the_rate_rises_and_falls_and_that_of_biases_is_larger():
    net = airbench.Network(torch.randn(100, 3, 2, 2), 10)
    optimizer, schedule = airbench._optimizer(net, 1024, 100)
    peak = 11.5 / (1 + 1 / 0.15)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    biases, others = np.array(rates).T
    assert others[0] == pytest.approx(0.2 * peak) and others.max() == pytest.approx(peak)
    assert others.argmax() == 23 and others[-1] < 0.1 * peak
    np.testing.assert_allclose(biases, 64 * others)
    # A step decays by rate times decay: biases as much as other parameters.
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays[0] * 64 == pytest.approx(decays[1])


def test_it_learns(monkeypatch):
    random = np.random.default_rng(0)

    def split(count):
        labels = (np.arange(count) % 2).astype(np.int32)
        images = random.integers(0, 100, (count, 32, 32, 3)) + 120 * labels[:, None, None, None]
        return InMemorySplit(images.astype(np.uint8), labels, ("dark", "light"), "made")

    monkeypatch.setattr(airbench, "WIDTHS", (8, 16, 16))
    splits = {"train": split(128), "validation": split(20), "test": split(20)}
    found = airbench.train(splits, airbench.Recipe(3, 32), "cpu", 0.0)
    assert found["test_top1"] > 0.9
    assert [point["epoch"] for point in found["curve"]] == [1, 2, 3]
    seconds = [point["seconds_of_training"] for point in found["curve"]]
    assert seconds == sorted(seconds) and seconds[0] > 0
