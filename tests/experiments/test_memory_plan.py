"""Photos far larger than the network sees: what a run takes, what it says it takes, what it refuses."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image
from running import REPOSITORY, tiny_config, tree_of

from tl_jax.errors import InputError
from tl_jax.parallel import memory, sharding
from tl_jax.runs import dispatch, evaluate, memory_plan, training
from tl_jax.runs.setup import prepare

MIB = 2**20


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """PATH/{a,b}/*.jpg: ten photos of 3 megapixels, 9 MB each as pixels."""
    path = tmp_path_factory.mktemp("photos")
    photo = Image.effect_noise((2000, 1500), 60).convert("RGB")
    for name in ("a", "b"):
        (path / name).mkdir()
        photo.save(path / name / "0.jpg", quality=50)
        for number in range(1, 5):
            (path / name / f"{number}.jpg").hardlink_to(path / name / "0.jpg")
    return path


def config(photos, **fields):
    given = {
        "data__name": f"folder:{photos}",
        "data__examples_per_class": 0,
        "data__batch_size": 4,
        "data__eval_batch_size": 500,
        "train__steps": 2,
        **fields,
    }
    return tiny_config(**given)


_RUN = """
import json, re, sys
from running import small_architectures
from tl_jax.runs import training
from tl_jax.models import registry
import jax, ml_collections, pathlib
registry.ARCHITECTURES = small_architectures()
jax.numpy.zeros(3).block_until_ready()
# Not `resource.getrusage`, which starts a process at what its parent held.
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
idle = peak()
training.run(ml_collections.ConfigDict(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
print("KIB", idle, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_on_photos_takes_what_its_plan_says(photos, tmp_path):
    """Decoded as stored, evaluation in batches of 500 would take 4.5 GB for its pixels alone."""
    folders = [str(REPOSITORY), str(REPOSITORY / "tests" / "experiments")]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, config(photos).to_json(), str(tmp_path / "run")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    idle, most = (1024 * int(text) for text in done.stdout.splitlines()[-1].split()[1:])
    assert most - idle < 450 * MIB
    rows = json.loads((tmp_path / "run" / "memory.json").read_text())
    planned = sum(row["bytes"] for row in rows if row["what"] == "most at once")
    assert 0.5 * most < planned < 1.5 * most
    said = {row["what"]: row["bytes"] for row in rows}
    assert said["decoded images"] == 10 * 8 * 8 * 3
    # A reduced photo and what is read of it, of each thread.
    assert 4 * 250 * 188 < said["decoding"] < 40 * MIB
    assert "evaluation: 2 images at once, activations and workspace" in said
    assert idle < said["Python, JAX and compiled programs"] < most


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("fields", "available", "parts"),
    [
        pytest.param(
            {"data__image_size": 200, "preprocess__resize": 0},
            100 * MIB,
            ["the run needs", "of the host's memory", "activations and workspace",
             "data.image_size (200: the network sees 200x200 pixels of 200x200), data.batch_size (4)",
             "data.eval_batch_size (500)"],
            id="activations",
        ),
        pytest.param(
            {"data__image_size": 0, "preprocess__resize": 0},
            1000 * MIB,
            ["data.image_size (0: the network sees 1500x1500 pixels of 1500x2000)"],
            id="as stored",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_is_tried(
    photos, tmp_path, monkeypatch, fields, available, parts
):
    monkeypatch.setattr(memory, "host_available", lambda: available)
    with pytest.raises(InputError) as raised:
        training.run(config(photos, **fields), tmp_path / "new")
    for part in parts:
        assert part in str(raised.value)
    assert tree_of(tmp_path) == {}


@pytest.mark.usefixtures("small_networks")
def test_an_accelerator_without_room_is_named(photos, monkeypatch):
    setup = prepare(config(photos))
    made = dispatch.make(setup)
    items, capacity = memory_plan.checked_items(setup, made)
    monkeypatch.setattr(memory_plan, "_is_host", lambda setup: False)
    memory_plan._check(setup, items, capacity)
    memory_plan._check(setup, items, capacity | {"device": 0})  # it does not say
    with pytest.raises(InputError, match="of the device's memory, which has 9 B"):
        memory_plan._check(setup, items, capacity | {"device": 9})


@pytest.mark.usefixtures("small_networks")
def test_training_and_evaluation_are_not_added_up(photos):
    made = dispatch.make(prepare(config(photos)))
    rows = {row["what"]: row for row in made.memory}
    during = {row.get("during") for row in made.memory}
    assert during == {None, "decoding", "placing", "training", "evaluation"} - {
        "placing" if "training data, copied" not in rows else ""
    }
    on_device = [row for row in made.memory if row["where"] == "device"]
    assert on_device[-1]["bytes"] < sum(row["bytes"] for row in on_device[:-1])


@pytest.mark.usefixtures("small_networks")
def test_batches_from_the_host_are_counted(photos):
    made = dispatch.make(prepare(config(photos, data__placement="host")))
    said = {row["what"]: row["bytes"] for row in made.memory}
    batch = 4 * (8 * 8 * 3 + 3 * 4)  # pixels, and label, position and index
    assert said["training batches"] == 3 * batch
    assert said["training batches read ahead"] == 6 * batch


@pytest.mark.usefixtures("small_networks")
def test_what_is_there_beside_the_state_is_counted(photos):
    setup = prepare(config(photos, data__validation_fraction=0.25))
    said = {row["what"]: row for row in dispatch.make(setup).memory}
    initial = said["initial weights, compared with at the end"]
    assert (initial["bytes"], initial["where"]) == (
        memory.tree_bytes(setup.initial.variables),
        "device",
    )
    # Taken from among those that are decoded: there are both until they are placed.
    copied = said["training data, copied"]
    assert copied["bytes"] == len(setup.splits["train"]) * 8 * 8 * 3
    assert (copied["where"], copied["during"]) == ("host", "placing")


@pytest.mark.parametrize(("devices", "expected"), [(1, 15), (4, 45)])
def test_every_simulated_device_takes_memory_of_the_host(devices, expected):
    items = [memory.Item("state", 10, "device"), memory.Item("images", 5, "host")]
    setup = types.SimpleNamespace(mesh=sharding.make_mesh(devices))
    assert memory_plan._needed_on_host(setup, items) == expected


@pytest.mark.usefixtures("small_networks")
def test_an_evaluation_shrinks_photos_as_the_run_did(tmp_path):
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    given = config(tmp_path / "photos", preprocess__interpolation="bicubic")
    result = training.run(given, tmp_path / "run")
    again = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "again")
    assert again["splits"]["test"] == result["splits"]["test"]


@pytest.mark.usefixtures("small_networks")
def test_images_that_fit_once_but_not_twice_are_read_from_the_host(photos, monkeypatch):
    setup = prepare(config(photos, data__image_size=100, preprocess__resize=0))
    setup.splits["train"].gather(np.arange(0))  # decoded by now
    num_bytes = 8 * 100 * 100 * 3
    for available, expected in [(100 * num_bytes, "replicated"), (num_bytes, None)]:
        monkeypatch.setattr(memory, "host_available", lambda available=available: available)
        monkeypatch.setattr(memory, "available", lambda device: 10**9)
        assert dispatch._layout(setup) == expected


def test_the_larger_pass_is_chosen_for_each_place():
    first = [memory.Item("a", 9, "device", "x"), memory.Item("b", 1, "host", "x")]
    second = [memory.Item("a", 2, "device", "x"), memory.Item("b", 20, "host", "x")]
    lasting = memory.Item("c", 5)
    assert memory_plan._larger([lasting, *first], second, "x") == [lasting, first[0], second[1]]
