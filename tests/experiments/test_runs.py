"""What a run leaves, and what others make of it: evaluation, fine-tuning from it, deviations."""

import html
import json

import numpy as np
import pytest
from PIL import Image
from running import metric_lines, tiny_config, tree_of

from tl_jax import files, statistics
from tl_jax.config import of_command
from tl_jax.errors import InputError
from tl_jax.runs import evaluate, training, weights
from tl_jax.runs.setup import prepare
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")
MEAN = (0.4, 0.5, 0.6)


@pytest.fixture(scope="module")
def finished(small_networks, tmp_path_factory):
    """A run with every output, and a preprocessing of its own; nothing is held out."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    config = tiny_config(
        train__steps=3,
        preprocess__mean=MEAN,
        data__validation_fraction=0.0,
        report__html=True,
        report__tensorboard=True,
    )
    return workdir, config, training.run(config, workdir)


def test_what_a_run_leaves(finished):
    workdir, config, result = finished
    names = {path.name for path in workdir.iterdir()}
    assert names >= {
        "config.json", "metrics.jsonl", "checkpoints", "freezing.json", "preprocessing.json",
        "weights.safetensors", "predictions.npz", "result.json", "report.html", "tensorboard",
    }  # fmt: skip
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(result))
    assert json.loads((workdir / "config.json").read_text()) == files.plain(of_command(config))
    assert result["splits"].keys() == {"test"}
    test = result["splits"]["test"]
    right = round(test["top1_accuracy"] * test["examples"])
    assert test["top1_interval"] == list(statistics.wilson_interval(right, test["examples"]))
    assert result["selection"] == (
        "the last step, 3; nothing was held out to choose by; test was read once, at the end"
    )
    assert result["train_examples"] == 20
    assert result["device"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    with np.load(workdir / "predictions.npz") as saved:
        correct = saved["probabilities"].argmax(-1) == saved["labels"]
        assert correct.mean() == pytest.approx(result["splits"]["test"]["top1_accuracy"])
        np.testing.assert_allclose(saved["probabilities"].sum(-1), 1, rtol=1e-5)
        assert len(saved["mistake_indices"]) == min(25, (~correct).sum())
        assert not correct[saved["mistake_indices"]].any()
    assert [line["step"] for line in metric_lines(workdir)] == [1, 2, 3]


def test_evaluating_a_run_gives_its_test_metrics(finished, tmp_path):
    workdir, _, result = finished
    again = evaluate.evaluate_run(workdir, None, tmp_path / "again")
    assert again["splits"] == {"test": result["splits"]["test"]}
    assert again["preprocessing"] == result["preprocessing"]
    assert again["deviations"] == []
    assert again["selection"] == f"the latest checkpoint of {workdir}"


def test_evaluating_the_exported_weights_gives_the_same(finished, tmp_path):
    """Their metadata brings the preprocessing along."""
    workdir, _, result = finished
    config = tiny_config(
        init__weights=str(workdir / "weights.safetensors"),
        init__head="keep",
        data__image_size=0,
        preprocess__resize=0,
    )
    again = evaluate.evaluate_weights(config, tmp_path / "again")
    assert again["splits"]["test"] == result["splits"]["test"]
    assert again["deviations"] == []
    assert again["preprocessing"]["mean"] == list(MEAN)


def test_an_evaluation_is_not_done_twice(finished, tmp_path, capsys):
    workdir, _, _ = finished
    first = evaluate.evaluate_run(workdir, "latest", tmp_path / "again")
    before = tree_of(tmp_path)
    again = evaluate.evaluate_run(workdir, "latest", tmp_path / "again")
    assert again == json.loads(json.dumps(first))
    assert tree_of(tmp_path) == before
    line = capsys.readouterr().out
    assert "is finished" in line
    test = json.loads((tmp_path / "again" / "result.json").read_text())["splits"]["test"]
    bounds = " to ".join(f"{100 * bound:.1f}" for bound in test["top1_interval"])
    assert f"test top-1 {100 * test['top1_accuracy']:.2f}% ({bounds}), 500 images" in line


def test_evaluating_into_the_run_itself_is_refused(finished):
    workdir, _, _ = finished
    before = tree_of(workdir)
    with pytest.raises(InputError, match="another config"):
        evaluate.evaluate_run(workdir, None, workdir)
    assert tree_of(workdir) == before


def test_the_best_of_a_run_that_held_nothing_out(finished, tmp_path):
    with pytest.raises(InputError, match="ask for 'latest'"):
        evaluate.evaluate_run(finished[0], "best", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_fine_tuning_from_a_run(finished, tmp_path):
    """Its folder stands for its weights; the new head is drawn, all else taken over bit for bit."""
    workdir, _, _ = finished
    config = tiny_config(
        init__weights=str(workdir),
        data__image_size=0,
        preprocess__resize=0,
        preprocess__std=(0.5, 0.5, 0.5),
    )
    setup = prepare(config)
    assert setup.preprocessing.mean == MEAN
    assert setup.preprocessing.image_size == 8
    assert setup.deviations == [
        "preprocessing std is (0.5, 0.5, 0.5), the weights were trained with (0.247, 0.2435, 0.2616)"
    ]
    kept = prepare(tiny_config(init__weights=str(workdir), init__head="keep"))
    heads = [s.initial.variables["params"]["head"]["kernel"] for s in (setup, kept)]
    stems = [s.initial.variables["params"]["stem"]["conv"]["kernel"] for s in (setup, kept)]
    assert not np.array_equal(*heads)
    np.testing.assert_array_equal(*stems)


def test_weights_that_say_nothing_of_their_preprocessing(finished, tmp_path):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(finished[0] / "weights.safetensors"), tmp_path / "bare.safetensors")
    setup = prepare(tiny_config(init__weights=str(tmp_path / "bare.safetensors")))
    assert len(setup.deviations) == 1
    assert "does not say what it was trained with" in setup.deviations[0]


def test_a_file_taken_by_hand_gets_the_preprocessing_of_its_registered_name():
    config = tiny_config(preprocess__weights="resnet50.tv_in1k", data__image_size=96)
    assert weights.preprocessing_of(config)["mean"] == (0.485, 0.456, 0.406)
    assert weights.preprocessing_of(config)["resize"] == 256
    with pytest.raises(InputError, match=r"nearest: resnet50\.tv_in1k"):
        weights.preprocessing_of(tiny_config(preprocess__weights="resnet50.tv_in1"))


def test_the_host_resizes_as_far_as_the_device_crops():
    config = tiny_config(
        preprocess__weights="resnet50.tv_in1k", data__image_size=96, preprocess__resize=0
    )
    theirs = weights.preprocessing_of(config)
    spec, _ = weights.make_preprocessing(config, weights.Initial({}, theirs, None), (32, 32, 3))
    assert weights.host_size(config) == spec.resize == 110  # 256 * 96 / 224 = 109.7
    assert weights.host_interpolation(config) == spec.interpolation == theirs["interpolation"]
    config.preprocess.interpolation = "bicubic"
    assert weights.host_interpolation(config) == "bicubic"
    assert weights.host_interpolation(tiny_config()) == "bilinear"


@pytest.mark.parametrize(
    ("image_size", "resize", "expected"),
    [(0, 0, (224, 256)), (112, 0, (112, 128)), (448, 0, (448, 512)), (64, 64, (64, 64))],
)
def test_another_image_size_keeps_the_proportion_of_the_crop(image_size, resize, expected):
    """Otherwise 112 pixels would be the middle of an image of 256, and 448 an error."""
    config = tiny_config(data__image_size=image_size, preprocess__resize=resize)
    theirs = {
        "mean": (0.5,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic",
        "image_size": 224, "resize": 256,
    }  # fmt: skip
    spec, _ = weights.make_preprocessing(config, weights.Initial({}, theirs, None), (32, 32, 3))
    assert (spec.image_size, spec.resize) == expected
    assert spec.interpolation == "bicubic"


def test_the_best_step_on_the_held_out_images_is_reported(tmp_path):
    config = tiny_config(
        train__steps=4,
        train__eval_every_steps=1,
        data__validation_fraction=0.1,
    )
    result = training.run(config, tmp_path / "run")
    scores = {
        line["step"]: line["top1_accuracy"]
        for line in metric_lines(tmp_path / "run")
        if line["split"] == "validation"
    }
    assert list(scores) == [1, 2, 3, 4]
    best = min(step for step in scores if scores[step] == max(scores.values()))
    assert result["selected_step"] == best
    assert result["splits"]["validation"]["top1_accuracy"] == scores[best]
    assert result["selection"].startswith(f"step {best} of 4, the best top-1 on 130 images")
    again = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "again")
    assert again["splits"]["test"] == result["splits"]["test"]


def test_one_evaluation_chooses_nothing(tmp_path):
    fields = {"train__steps": 2, "train__eval_every_epochs": 0.0}
    config = tiny_config(data__validation_fraction=0.1, **fields)
    result = training.run(config, tmp_path / "run")
    assert result["splits"]["validation"]["examples"] == 130
    assert result["selection"].startswith("the last step, 2, the only one evaluated")


def test_a_run_says_what_it_reports_on_and_what_it_ignored(tmp_path, capsys):
    """A folder without a test split, with files that are not images."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "notes.txt").write_text("not an image")
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    config = tiny_config(
        train__steps=1,
        data__name=f"folder:{tmp_path}",
        data__validation_fraction=0.25,
        data__batch_size=2,
        report__html=True,
    )
    result = training.run(config, tmp_path / "run")
    assert result["splits"]["test"]["examples"] == 8
    assert result["splits"]["validation"]["examples"] == 2
    assert result["selection"].endswith(
        "on validation; val (there is no test split with labels) was read once, at the end"
    )
    with np.load(tmp_path / "run" / "predictions.npz") as saved:
        assert len(saved["mistake_files"]) == len(saved["mistake_indices"]) > 0
        for file, image in zip(saved["mistake_files"], saved["mistake_images"], strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(file)), image)
    ignored, reported = result["data_notes"]
    assert ignored.endswith("ignored files of types that are not read (4): 4 .txt")
    assert reported.endswith("its split 'val' is reported on as test")
    printed = capsys.readouterr().err.splitlines()
    page = (tmp_path / "run" / "report.html").read_text()
    for note in (ignored, reported):
        assert printed.count(note) == 1
        assert html.escape(note, quote=False).replace("'", "&#39;") in page


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_devices_and_modes_give_the_same_run(tmp_path, mode, rows):
    """With accumulation: 4 devices of which each sees two microbatches, of 2 rows each."""
    losses = []
    for devices, run_mode in ((1, "jit"), (4, mode)):
        config = tiny_config(
            train__steps=3,
            data__batch_size=16,
            optim__accumulation=2,
            optim__learning_rate=0.01,
            parallel__devices=devices,
            parallel__mode=run_mode,
            model__batch_norm_rows=rows,
        )
        training.run(config, tmp_path / f"{devices}{run_mode}")
        losses.append([line["loss"] for line in metric_lines(tmp_path / f"{devices}{run_mode}")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_diverging_run_saves_nothing_after_it_broke(tmp_path):
    config = tiny_config(optim__learning_rate=1e30, train__checkpoint_every_steps=1)
    with pytest.raises(loops.NonFiniteLoss, match="indices of its batch") as raised:
        training.run(config, tmp_path / "run")
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved, default=0) <= raised.value.step
    assert not (tmp_path / "run" / "result.json").exists()


def test_pretrain_refuses_weights(tmp_path):
    config = tiny_config(init__weights="resnet20_cifar.tin32")
    with pytest.raises(InputError, match="pretrain starts from random weights"):
        training.pretrain(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_pretrain_is_the_loop_of_finetune(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(training, "run", lambda *arguments: given.append(arguments))
    config, stop = tiny_config(), lambda: False
    training.pretrain(config, tmp_path / "new", stop)
    assert given == [(config, tmp_path / "new", stop)]
