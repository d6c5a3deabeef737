"""The registry against the packages it was read from, and fetching without a network."""

import contextlib
import dataclasses
import hashlib
import http.server
import inspect
import math
import threading
import time

import huggingface_hub.constants
import jax.numpy as jnp
import numpy as np
import pytest
from fabricate import random_variables

from tl_jax import models, porting
from tl_jax.augment.preprocessing import normalize
from tl_jax.errors import InputError
from tl_jax.models.pretrained import PretrainedWeights, get_pretrained, list_pretrained
from tl_jax.porting import hub

HUB_NAMES = [name for name in list_pretrained() if get_pretrained(name).repo_id]
KERAS_NAMES = list_pretrained("*.keras_in1k*")


@pytest.mark.parametrize("name", list_pretrained())
def test_entries_are_complete(name):
    weights = get_pretrained(name)
    assert isinstance(weights, PretrainedWeights)
    assert weights.name == name and name.startswith(f"{weights.model}.".removesuffix("_cifar."))
    model = models.create_model(weights.model, weights.num_classes)
    if isinstance(model, models.ResNet):
        assert model.stem_kind == weights.stem
    assert weights.channel_order == ("bgr" if ".keras" in name else "rgb")
    assert weights.licence and weights.source
    assert weights.interpolation in ("bilinear", "bicubic")
    assert weights.packaged or not weights.num_classes or 0.6 < weights.top1_accuracy < 0.9


def test_names_by_hand():
    weights = get_pretrained("resnet50.a1_in1k")
    assert (
        weights.url == "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
    )
    assert weights.resize_size == 235 and weights.top1_accuracy == 0.81214
    assert get_pretrained("resnet50.tv2_in1k").resize_size == 232
    assert get_pretrained("resnet18.tv_in1k").resize_size == 256
    assert list_pretrained("resnet50.tv*") == ["resnet50.tv2_in1k", "resnet50.tv_in1k"]
    with pytest.raises(
        InputError,
        match=r"unknown pretrained weights 'resnet50.a1-in1k'; nearest: resnet50.a1_in1k",
    ):
        get_pretrained("resnet50.a1-in1k")


def test_preprocessing_is_timms(require):
    require("torch", "torchvision", "timm")
    import torch_reference

    torch_reference.torchvision_models()
    import timm

    for name in HUB_NAMES:
        weights = get_pretrained(name)
        theirs = timm.get_pretrained_cfg(name)
        assert (weights.mean, weights.std) == (theirs.mean, theirs.std), name
        assert weights.interpolation == theirs.interpolation, name
        assert weights.licence == theirs.license, name
        assert theirs.num_classes == 1000 and theirs.hf_hub_id == weights.repo_id, name
        if ".tv2_" in name:
            # timm states torchvision's training size; torchvision evaluates at the test size.
            assert weights.image_size == theirs.test_input_size[1], name
            assert weights.crop_fraction == theirs.test_crop_pct, name
        else:
            assert weights.image_size == theirs.input_size[1], name
            assert weights.crop_fraction == theirs.crop_pct, name
            if theirs.test_input_size:
                assert weights.top1_image_size == theirs.test_input_size[1], name
                assert weights.top1_crop_fraction == theirs.test_crop_pct, name


def test_accuracy_and_resizing_are_torchvisions(require):
    require("torch", "torchvision")
    import torch_reference

    torchvision_models = torch_reference.torchvision_models()
    for version, tag in [("IMAGENET1K_V1", "tv_in1k"), ("IMAGENET1K_V2", "tv2_in1k")]:
        for name in list_pretrained(f"*.{tag}"):
            weights = get_pretrained(name)
            theirs = torchvision_models.get_model_weights(weights.model)[version]
            transforms = theirs.transforms()
            stated = theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
            assert math.isclose(weights.top1_accuracy, stated), name
            assert transforms.crop_size == [weights.image_size], name
            assert transforms.resize_size == [weights.resize_size], name
            assert transforms.interpolation.value == weights.interpolation, name
            assert (tuple(transforms.mean), tuple(transforms.std)) == (weights.mean, weights.std)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_offline_says_what_to_place_where(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set") as caught:
        porting.fetch(get_pretrained("resnet18.tv_in1k"))
    message = str(caught.value)
    assert "https://huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors" in message
    assert "--config.init.weights=FILE" in message and str(empty_cache) in message


def test_no_network_is_told_within_ten_seconds(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # Port 9 of this machine: refused at once.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(
        InputError, match=r"http://127.0.0.1:9 cannot be reached .*init.weights=FILE"
    ):
        porting.fetch(get_pretrained("resnet18.tv_in1k"))
    assert time.monotonic() - start < 10


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    def slow(*_, **__):
        time.sleep(0.6)
        return contextlib.nullcontext()

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(hub.urllib.request, "urlopen", slow)
    assert hub._unreachable("http://example.invalid") == "no answer within 0.2 s"


def test_weights_of_keras_by_hand():
    assert len(KERAS_NAMES) == 10
    weights = get_pretrained("keras_resnet101.keras_in1k")
    assert weights.url == (
        "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
        "resnet101_weights_tf_dim_ordering_tf_kernels.h5"
    )
    assert (weights.md5, weights.top1_accuracy) == ("f1aeb4b969a6efcfb50fad2f0c20cfc5", 0.764)
    without = get_pretrained("vgg16.keras_in1k_notop")
    assert without.url.endswith("/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5")
    assert (without.num_classes, without.top1_accuracy) == (0, None)


def test_preprocessing_of_keras_without_its_scale():
    """(x / 255 - mean) / std is the pixel less 123.68, 116.779, 103.939 for R, G, B."""
    weights = get_pretrained("vgg16.keras_in1k")
    pixels = np.array([[[[0, 128, 255]]]], np.uint8)
    ours = np.asarray(normalize(jnp.asarray(pixels), weights.mean, weights.std))
    expected = pixels - np.array([123.68, 116.779, 103.939])
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


def test_addresses_digests_and_preprocessing_are_keras(require):
    require("keras")
    import keras_reference  # noqa: F401  (chooses the backend of Keras)
    from keras.src.applications import imagenet_utils, resnet, vgg16, vgg19

    pixels = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3) * 20
    theirs = imagenet_utils.preprocess_input(pixels.copy(), mode="caffe")
    for name in KERAS_NAMES:
        weights = get_pretrained(name)
        network = weights.model.removeprefix("keras_")
        without = name.endswith("_notop")
        if network.startswith("resnet"):
            assert weights.md5 == resnet.WEIGHTS_HASHES[network][without]
            assert weights.url.startswith(resnet.BASE_WEIGHTS_PATH)
        else:
            module = {"vgg16": vgg16, "vgg19": vgg19}[network]
            assert weights.url == (module.WEIGHTS_PATH_NO_TOP if without else module.WEIGHTS_PATH)
            assert f'file_hash="{weights.md5}"' in inspect.getsource(module)
        ours = np.asarray(normalize(jnp.asarray(pixels), weights.mean, weights.std))
        np.testing.assert_allclose(ours[..., ::-1], theirs, rtol=0, atol=3e-5)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights at the address of a server of this test, which counts what it sends, and Keras' empty cache."""
    content, asked = b"weights of Keras", []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(hub, "KERAS_CACHE", tmp_path / "keras" / "models")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        weights = dataclasses.replace(
            get_pretrained("vgg16.keras_in1k"),
            address=f"http://127.0.0.1:{server.server_address[1]}/file.h5",
            md5=hashlib.md5(content).hexdigest(),
        )
        yield weights, asked
        server.shutdown()
        thread.join()


def test_a_file_of_keras_is_downloaded_once_and_verified(published, tmp_path, capfd):
    weights, asked = published
    path = porting.fetch(weights)
    assert path == tmp_path / "keras" / "models" / weights.filename
    assert path.read_bytes() == b"weights of Keras"
    assert f"downloading {weights.filename}: 100%" in capfd.readouterr().err
    assert porting.fetch(weights) == path and asked == ["/file.h5"]


def test_a_wrong_download_never_takes_the_name(published):
    weights, _ = published
    wrong = dataclasses.replace(weights, md5="0" * 32)
    with pytest.raises(
        InputError, match=r"is damaged or another version: its MD5 is .*; it was removed"
    ):
        porting.fetch(wrong)
    assert list(hub.KERAS_CACHE.iterdir()) == []
    # One that was there before, such as an older version, stays.
    old = hub.KERAS_CACHE / weights.filename
    old.write_bytes(b"older")
    with pytest.raises(InputError, match=r"another version.*delete or rename it"):
        porting.fetch(weights)
    assert old.read_bytes() == b"older"


def test_no_network_says_where_a_file_of_keras_goes(published, tmp_path, monkeypatch):
    weights, _ = published
    # Port 9 of this machine: refused at once.
    away = dataclasses.replace(weights, address="http://127.0.0.1:9/file.h5")
    with pytest.raises(InputError) as caught:
        porting.fetch(away)
    message = str(caught.value)
    assert "no file for vgg16.keras_in1k: http://127.0.0.1:9/file.h5 cannot be reached" in message
    assert not hub.KERAS_CACHE.exists()
    assert f"place it as {hub.KERAS_CACHE / weights.filename}" in message
    assert "--config.preprocess.weights=vgg16.keras_in1k" in message
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(hub, "KERAS_CACHE", tmp_path / "file" / "models")
    with pytest.raises(
        InputError, match=r"no file for vgg16.keras_in1k: the download failed: .*Not a directory"
    ):
        porting.fetch(weights)


def cached(folder, weights, content, blob):
    """Lays a file into the hub's cache as the hub library does."""
    repository = folder / f"models--{weights.repo_id.replace('/', '--')}"
    for part in ("blobs", "refs", "snapshots/0123"):
        (repository / part).mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    (repository / "blobs" / blob).write_bytes(content)
    link = repository / "snapshots/0123" / weights.filename
    link.symlink_to(repository / "blobs" / blob)
    return link


def test_a_cached_file_is_used_offline_and_its_digest_checked(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    weights = get_pretrained("resnet18.tv_in1k")
    model = models.create_model("resnet18", 1000)
    variables = random_variables(model)
    path = porting.save_state_dict(
        empty_cache / "a.safetensors", porting.export_state_dict(variables)
    )
    content, digest = path.read_bytes(), porting.read_source(path).sha256
    link = cached(empty_cache, weights, content, digest)

    ported, report = porting.load_pretrained("resnet18.tv_in1k", model)
    assert (report.weights, report.sha256) == ("resnet18.tv_in1k", digest)
    np.testing.assert_array_equal(
        ported["params"]["head"]["bias"], variables["params"]["head"]["bias"]
    )

    link.resolve().write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="is damaged: its SHA-256 is"):
        porting.fetch(weights)


def test_packaged_weights_come_with_the_package():
    weights = get_pretrained("resnet20_cifar.tin32")
    try:
        path = porting.fetch(weights)
    except InputError as error:
        assert "comes with the package but" in str(error)
        pytest.skip("the packaged weights are not there yet")
    model = models.create_model(weights.model, weights.num_classes)
    _, report = porting.load_pretrained(weights.name, model, input_shape=(1, 32, 32, 3))
    assert report.source == str(path)


def test_a_name_that_is_neither_file_nor_registered():
    model = models.create_model("resnet18", 10)
    with pytest.raises(
        InputError, match=r"unknown pretrained weights 'resnet18.tv'; nearest: resnet18.tv"
    ):
        porting.load_pretrained("resnet18.tv", model)
    with pytest.raises(InputError, match=r"no such file: missing.safetensors"):
        porting.load_pretrained("missing.safetensors", model)
