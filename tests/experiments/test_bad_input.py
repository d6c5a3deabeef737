"""What is wrong is said before anything is made: exit code 2, one message, nothing on disk."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from running import REPOSITORY, arguments, tiny_config, tree_of

from tl_jax import models, porting
from tl_jax.errors import InputError
from tl_jax.runs import evaluate, training, weights
from tl_jax.runs.setup import prepare

FIELDS = {
    "wrong model": ({"model__name": "resnet20_cifr"}, "nearest: resnet20_cifar"),
    "wrong stem": (
        {"model__stem": "cifr"},
        "model.stem='cifr': unknown stem of resnet20_cifar 'cifr'; nearest: cifar",
    ),
    "wrong dtype": ({"model__dtype": "float16"}, "unknown model.dtype 'float16'"),
    "wrong data": ({"data__name": "digit"}, "data.name='digit': unknown data set 'digit'; nearest: digits"),
    "wrong form of data": ({"data__name": "tfd:cifar10"}, "known: csv:PATH, digits, folder:PATH"),
    "wrong split": ({"data__train_split": "trian"}, "nearest: train"),
    "training on the test split": (
        {"data__train_split": "test"},
        "data.train_split='test' and data.test_split='test' of digits share 500 examples",
    ),
    "too many per class": ({"data__examples_per_class": 1000}, "data.examples_per_class=1000 is not possible"),
    "wrong model with weights": (
        {"model__name": "resnet17", "init__weights": "resnet20_cifar.tin32"},
        "unknown model.name 'resnet17'; nearest: resnet18",
    ),
    "wrong order of channels": (
        {"init__channel_order": "bgrr"},
        "unknown init.channel_order 'bgrr'; nearest: bgr",
    ),
    "channels of nothing": (
        {"init__channel_order": "bgr"},
        "init.channel_order=bgr without init.weights: no network takes channels in an order yet",
    ),
    "hidden layers that weights without top have not": (
        {"model__name": "vgg16", "init__weights": "vgg16.keras_in1k_notop"},
        "add --config.model.classifier=pooled, or choose vgg16.keras_in1k",
    ),
    "a head that weights without top have not": (
        {
            "model__name": "keras_resnet50",
            "init__weights": "keras_resnet50.keras_in1k_notop",
            "init__head": "keep",
        },
        "starts a fresh one, or choose from keras_resnet50.keras_in1k",
    ),
    "several at once": (
        {"seed": -1, "optim__name": "sdg", "optim__momentum": 1.0},
        "known: adamw, sgd\noptim.momentum=1.0: expected a number in [0, 1)",
    ),
    "wrong type": ({"optim__step_steps": ("ten",)}, "optim.step_steps=('ten',): expected a tuple of integers"),
    "no train split": ({"data__train_split": ""}, "data.train_split='': expected a split"),
    "notation": ({"data__train_split": "train[:"}, "data.train_split='train[:'"),
    "nothing held out": ({"data__validation_fraction": 1e-5}, "data.validation_fraction=1e-05 holds 0 of"),
    "infinite epochs": ({"train__steps": 0, "train__epochs": float("inf")}, "train.epochs=inf: expected a number"),
    "negative epochs": ({"train__epochs": -1.0}, "train.epochs=-1.0: expected a number in [0, inf)"),
    "nesterov": (
        {"optim__nesterov": True, "optim__momentum": 0.0},
        "optim.nesterov is True, expected False with momentum 0",
    ),
    "layer-wise decay": ({"optim__layerwise_decay": 0.0}, "optim.layerwise_decay=0.0"),
    "boundaries beyond the end": (
        {"optim__schedule": "step", "optim__step_steps": (4, 9)},
        "optim.step_steps=(4, 9): optim.schedule=step needs one or more increasing updates below the length "
        "of the run; the run has 6 updates (train.steps); add --config.optim.step_steps='(3, 4)'",
    ),
    "boundaries in epochs": (
        {"optim__schedule": "step", "optim__step_epochs": (1.0, 5.0)},
        "optim.step_epochs=(1.0, 5.0) (after 2, 10 updates): ",
    ),
    "no boundaries": ({"optim__schedule": "step"}, "optim.step_steps=(): optim.schedule=step needs"),
    "two kinds of boundaries": (
        {"optim__step_epochs": (1.0,), "optim__step_steps": (1,)},
        "optim.step_steps=(1,), optim.step_epochs=(1.0,): give one of them",
    ),
    "warmup in epochs": (
        {"optim__warmup_epochs": 9.0},
        "optim.warmup_epochs=9 (18 updates): longer than the run; the run has 6 updates",
    ),
    "whole split held out": ({"data__validation_fraction": 1.0}, "data.validation_fraction=1.0"),
    "wrong operation": (
        {"augment__operations": ("rotation=15", "colour_jitter=0.4")},
        "augment.operations=('rotation=15', 'colour_jitter=0.4'): unknown operation 'colour_jitter'; nearest: color_",
    ),
    "wrong strength": (
        {"augment__operations": ("random_erasing=1.5",)},
        "'random_erasing=1.5': expected random_erasing=NUMBER in [0, 1] (the probability)",
    ),
    "an object's operation": (
        {"augment__operations": ("own:darken=0.5",)},
        "augment.operations: 'own:darken=0.5' is an object of the Python code that made this config",
    ),
    "wrong mixing": ({"augment__mixing": ("mixpu=1",)}, "unknown mixing 'mixpu'; nearest: mixup"),
    "an object's mixing": ({"augment__mixing": ("own:a=1",)}, "tl_jax.finetune(..., mixing=[...])"),
    "mixing in pmap": (
        {"augment__mixing": ("mixup=1",), "parallel__mode": "pmap", "parallel__devices": 2},
        "augment.mixing=('mixup=1',): with parallel.mode=pmap each of the 2 devices sees its own rows alone",
    ),
    "groups of BatchNorm": (
        {"model__batch_norm_rows": 4},
        "model.batch_norm_rows=4: 10 examples at once (data.batch_size=10, optim.accumulation=1) do not split into "
        "groups of that many; nearest: 1, 2, 5, or 0 for all rows of the global batch",
    ),
    "groups of a microbatch": (
        {"model__batch_norm_rows": 10, "phases": (("train.steps=2",), ("optim.accumulation=2",))},
        "phase 2: model.batch_norm_rows=10: 5 examples at once (data.batch_size=10, optim.accumulation=2) do not",
    ),
    "groups across devices in pmap": (
        {"model__batch_norm_rows": 10, "parallel__mode": "pmap", "parallel__devices": 2},
        "model.batch_norm_rows=10: 5 examples at once (data.batch_size=10, optim.accumulation=1, parallel.mode=pmap "
        "on 2 devices) do not split into groups of that many; nearest: 1, 5, or 0",
    ),
    "groups of a fitted batch": (
        {"model__batch_norm_rows": 5, "train__fit_to_data": True, "train__steps": 0},
        "model.batch_norm_rows=5: 8 examples at once (data.batch_size=8, ",
    ),
    "groups without BatchNorm": (
        {"model__name": "vgg11", "model__batch_norm_rows": 5},
        "model.batch_norm_rows=5: vgg11 has no such option",
    ),
    "negative groups": ({"model__batch_norm_rows": -1}, "model.batch_norm_rows=-1: expected an integer from 0"),
    "wrong strategy": ({"freeze__strategy": "backbon"}, "freeze.strategy='backbon'"),
    "wrong stage": ({"freeze__strategy": "up_to:stage9"}, "stage9"),
    "pattern without match": ({"freeze__patterns": ("stage1/blok0/.*",)}, "nearest: stage1/block0"),
    "nothing to train": ({"freeze__patterns": (".*",)}, "nothing is left to train"),
    "wrong policy": ({"freeze__batch_norm": "forzen"}, "nearest: frozen"),
    "multiplier without match": ({"optim__lr_multipliers": ("haed/.*=2",)}, "matches no leaf"),
    "wrong optimizer": ({"optim__name": "sdg"}, "nearest: sgd"),
    "wrong schedule": ({"optim__schedule": "cosin"}, "nearest: cosine"),
    "negative rate": ({"optim__learning_rate": -1.0}, "optim.learning_rate=-1.0: expected a number in [0, inf)"),
    "warmup beyond the end": (
        {"optim__warmup_steps": 7},
        "optim.warmup_steps=7: longer than the run; the run has 6 updates (train.steps); add "
        "--config.optim.warmup_steps=0 for no warm-up, or at most 6",
    ),
    "two warmups": ({"optim__warmup_epochs": 1.0, "optim__warmup_steps": 1}, "give one of them"),
    "negative pull": ({"objective__l2_sp": -0.1}, "objective.l2_sp=-0.1: expected a number in [0, inf)"),
    "smoothing": ({"objective__label_smoothing": 1.0}, "objective.label_smoothing=1.0"),
    "accumulation": ({"optim__accumulation": 3}, "optim.accumulation=3: a batch of 10"),
    "batch larger than the split": (
        {"data__batch_size": 21},
        "data.batch_size=21 is larger than the training split of 20 images, 2 of each",
    ),
    "batch of nothing": ({"data__batch_size": 0}, "data.batch_size=0"),
    "indivisible batch": (
        {"parallel__devices": 8},
        "data.batch_size=10 is not divisible by 8 devices; nearest: 8 or 16",
    ),
    "evaluation batch of nothing": ({"data__eval_batch_size": 0}, "data.eval_batch_size=0"),
    "too many devices": ({"parallel__devices": 9}, "has 8 devices"),
    "wrong mode": ({"parallel__mode": "pmpa"}, "nearest: pmap"),
    "absurd image size": ({"data__image_size": 10**6}, "data.image_size=1000000: expected"),
    "negative image size": ({"data__image_size": -1}, "image_size=-1"),
    "resize below image size": ({"preprocess__resize": 4}, "preprocess.resize is 4"),
    "wrong interpolation": ({"preprocess__interpolation": "bicubc"}, "nearest: bicubic"),
    "mean in [0, 255]": ({"preprocess__mean": (125.3, 123.0, 113.9)}, "expected numbers in [0, 1]"),
    "one mean": ({"preprocess__mean": (0.5,)}, "preprocess.mean=(0.5,): 1 channels; expected three numbers"),
    "wrong order": ({"data__order": "balancd"}, "unknown data.order 'balancd'; nearest: balanced"),
    "repeats of the same": (
        {"augment__repeats": 3, "augment__flip": False, "augment__crop_padding": 0},
        "augment.repeats=3: without augment.flip, augment.crop_padding and augment.operations all repeats of an",
    ),
    "wrong weighting": ({"objective__class_weighting": "balance"}, "nearest: balanced"),
    "too few weights": (
        {"objective__class_weights": (1.0, 2.0)},
        "objective.class_weights=(1.0, 2.0): expected 10 numbers, not all of them 0, for the classes 0; 1; 2",
    ),
    "weights of nothing": ({"objective__class_weights": (0.0,) * 10}, "expected 10 numbers, not all of them 0"),
    "two kinds of weights": (
        {"objective__class_weights": (1.0,) * 10, "objective__class_weighting": "balanced"},
        "objective.class_weighting='balanced' and objective.class_weights=(1.0, 1.0",
    ),
    "weights without cross-entropy": (
        {"objective__class_weighting": "balanced", "objective__weight": 0.0, "objective__delta": 1.0},
        "objective.class_weighting='balanced': of cross_entropy, without effect on objective.name=cross_entropy with "
        "objective.weight=0; expected no weights of classes",
    ),
    "beta": ({"objective__effective_beta": 1.0}, "objective.effective_beta=1.0: expected a number in [0, 1)"),
    "wrong metric": ({"train__select_by": "macro_f2"}, "unknown train.select_by 'macro_f2'; nearest: macro_f1"),
    "a metric of one phase": (
        {"phases": (("train.select_by=loss", "train.steps=2"), ())},
        "phase 1: train.select_by=loss: train.select_by is of the whole run, not of a phase",
    ),
    "no length": ({"train__steps": 0}, "exactly one must be above 0"),
    "two lengths": ({"train__epochs": 1.0}, "exactly one must be above 0"),
    "negative seed": ({"seed": -1}, "-1"),
    "huge seed": ({"seed": 2**40}, "seed=1099511627776: expected an integer from 0 to"),
    "wrong weights": ({"init__weights": "resnet18.tv_in1"}, "nearest: resnet18.tv_in1k"),
    "missing weights": ({"init__weights": "nowhere/weights.pth"}, "nowhere/weights.pth"),
    "weights of another model": ({"init__weights": "resnet18.tv_in1k"}, "add --config.model.name=resnet18"),
    "wrong head": ({"init__weights": "resnet20_cifar.tin32", "init__head": "rest"}, "nearest: reset"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_field_is_told_before_the_run_folder_is_made(tmp_path, fields, expected):
    with pytest.raises(InputError) as raised:
        training.run(tiny_config(**fields), tmp_path / "new")
    assert expected in str(raised.value)
    assert tree_of(tmp_path) == {}


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """Returns a file with the weights of another network, of other widths."""
    import jax

    model = models.resnet.ResNet((1, 1, 1), "basic", 7, stem_kind="cifar", width=4, shortcut="pad")
    variables = models.init_variables(model, jax.random.key(0))
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    porting.save_state_dict(path, porting.export_state_dict(variables, naming="cifar"))
    return path


def test_weights_of_another_architecture(other_weights, tmp_path):
    """One message says of each kind of difference which leaves have it."""
    with pytest.raises(InputError) as raised:
        training.run(tiny_config(init__weights=str(other_weights)), tmp_path / "new")
    message = str(raised.value)
    assert str(other_weights) in message
    assert "wrong shape: conv1.weight, for params/stem/conv/kernel" in message
    assert re.search(r"^missing: \d+ more$", message, re.MULTILINE)
    assert tree_of(tmp_path) == {}


def test_a_head_of_other_classes_cannot_be_kept(other_weights, tmp_path, monkeypatch):
    import dataclasses

    from tl_jax.models import registry

    small = dataclasses.replace(
        registry.ARCHITECTURES["resnet20_cifar"], stage_sizes=(1, 1, 1), width=4
    )
    monkeypatch.setitem(registry.ARCHITECTURES, "resnet20_cifar", small)
    prepare(tiny_config(init__weights=str(other_weights)))
    config = tiny_config(init__weights=str(other_weights), init__head="keep")
    for command in (training.run, evaluate.evaluate_weights):
        with pytest.raises(InputError) as raised:
            command(config, tmp_path / "new")
        assert "head/kernel" in str(raised.value)
    assert tree_of(tmp_path) == {}


def test_weights_of_our_own_take_rgb(other_weights, tmp_path):
    """A run has turned them round already, where they came from a network that takes BGR."""
    config = tiny_config(init__weights=str(other_weights), init__channel_order="bgr")
    assert weights.find(config) == str(other_weights)  # other makers may write a BGR network
    own = tmp_path / weights.EXPORTED
    porting.save_state_dict(
        own,
        porting.read_source(other_weights).tensors,
        metadata={weights.METADATA_KEY: json.dumps({"model": "resnet20_cifar"})},
    )
    for place in (own, tmp_path):
        config.init.weights = str(place)
        with pytest.raises(InputError, match=f"init.channel_order=bgr with init.weights={place}: "):
            weights.find(config)
    config.init.channel_order = "rgb"
    assert weights.find(config) == str(own)


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "started").mkdir()
    config = tiny_config(init__weights=str(tmp_path / "started"))
    with pytest.raises(InputError, match=f"no {weights.EXPORTED} in this folder"):
        training.run(config, tmp_path / "new")
    assert tree_of(tmp_path) == {"started": "folder"}


@pytest.mark.parametrize(
    ("source", "head"), [("", "keep"), ("resnet18.tv_in1k", "reset")], ids=["none", "reset"]
)
def test_evaluation_needs_weights_with_their_head(tmp_path, source, head):
    config = tiny_config(init__weights=source, init__head=head)
    with pytest.raises(InputError, match=r"needs --config\.init\.weights=FILE"):
        evaluate.evaluate_weights(config, tmp_path / "new")
    assert tree_of(tmp_path) == {}


def test_evaluating_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json and no preprocessing\.json there"):
        evaluate.evaluate_run(tmp_path / "nowhere", None, tmp_path / "new")
    assert tree_of(tmp_path) == {}


def test_a_file_of_the_wrong_kind(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    config = tiny_config(data__name=f"npz:{tmp_path / 'data.npz'}")
    with pytest.raises(InputError, match="no pair of arrays"):
        training.run(config, tmp_path / "new")
    assert tree_of(tmp_path).keys() == {"data.npz"}


QUICKSTART = "--config=configs/quickstart.py"
COMMANDS = {
    "unknown field": (
        ["finetune", QUICKSTART, "--config.optim.learning_rat=1", "--workdir={new}"],
        "unknown config field 'optim.learning_rat'; nearest: optim.learning_rate",
    ),
    "unknown field of a spaced flag": (
        ["finetune", *QUICKSTART.split("="), "--config.optim.lr", "1", "--workdir={new}"],
        "unknown config field 'optim.lr'",
    ),
    "a section": (
        ["finetune", QUICKSTART, "--config.optim=sgd", "--workdir={new}"],
        "unknown config field 'optim'",
    ),
    "wrong type": (
        ["finetune", QUICKSTART, "--config.train.steps=many", "--workdir={new}"],
        "--config.train.steps=many: expected an integer",
    ),
    "not true or false": (
        ["finetune", QUICKSTART, "--config.report.html=maybe", "--workdir={new}"],
        "--config.report.html=maybe: expected true or false",
    ),
    "no tuple": (
        ["finetune", QUICKSTART, "--config.preprocess.mean=grey", "--workdir={new}"],
        "--config.preprocess.mean=grey: expected a tuple of numbers, such as (0.1, 0.2)",
    ),
    "not a number": (
        ["finetune", QUICKSTART, "--config.optim.learning_rate", "nan", "--workdir={new}"],
        "--config.optim.learning_rate=nan: expected a number",
    ),
    "wrong flag": (
        ["finetune", QUICKSTART, "--workdri={new}"],
        "unknown flag '--workdri'; nearest: --workdir",
    ),
    "no number of processes": (
        ["finetune", QUICKSTART, "--num_processes=two", "--workdir={new}"],
        "--num_processes=two: expected an integer",
    ),
    "warm-up longer than the run": (
        ["finetune", QUICKSTART, "--config.train.steps=5", "--workdir={new}"],
        "optim.warmup_steps=10: longer than the run; the run has 5 updates (train.steps)",
    ),
    "two lengths": (
        ["finetune", QUICKSTART, "--config.train.epochs=5", "--workdir={new}"],
        "train.steps=80, train.epochs=5: exactly one must be above 0",
    ),
    "a network that does not fit the weights": (
        ["finetune", QUICKSTART, "--config.model.name=resnet17", "--workdir={new}"],
        "unknown model.name 'resnet17'; nearest: resnet18",
    ),
    "checkpoint and a field that is not of the data": (
        ["evaluate", "--checkpoint={new}", "--config.optim.momentum", "1", "--workdir={new}"],
        "no config.json and no preprocessing.json there",
    ),
    "stray argument": (
        ["finetune", QUICKSTART, "{new}"],
        "unexpected argument",
    ),
    "no workdir": (["finetune", QUICKSTART], "--workdir must be given"),
    "no config": (["finetune", "--workdir={new}"], "--config must be given"),
    "field without config": (
        ["finetune", "--config.seed=1", "--workdir={new}"],
        "--config.seed=1 without --config: give the config file too",
    ),
    "missing config": (
        ["finetune", "--config=configs/quickstat.py", "--workdir={new}"],
        "unknown config file 'configs/quickstat.py'; nearest: configs/quickstart.py",
    ),
    "missing config of a spaced flag": (
        ["finetune", "--config", "configs/quickstat.py", "--workdir={new}"],
        "unknown config file 'configs/quickstat.py'; nearest: configs/quickstart.py",
    ),
    "weights of pretrain": (
        ["pretrain", QUICKSTART, "--workdir={new}"],
        "pretrain starts from random weights",
    ),
    "comparison of nothing": (
        ["compare", "--config=configs/cifar10_resnet20.py", "--workdir={new}"],
        "compare.methods and compare.seeds",
    ),
    "neither a config nor runs to compare": (
        ["compare", "--workdir={new}"],
        "--config=FILE must be given, or the folders of two finished runs or more",
    ),
    "runs and a config": (
        ["compare", "{new}", "{new}2", QUICKSTART],
        "new and --config: expected --config to run methods over seeds, or the folders of finished runs\n",
    ),
    "runs and a workdir": (
        ["compare", "{new}", "{new}2", "--workdir={new}"],
        "new and --workdir: expected --config to run methods over seeds, or the folders of finished runs; --out=DIR",
    ),
    "a folder for a comparison of methods": (
        ["compare", QUICKSTART, "--workdir={new}", "--out={new}"],
        "--out is of run folders: experiments.compare RUN RUN --out=DIR",
    ),
    "a single run to compare": (
        ["compare", "{new}"],
        "new alone is given; expected the folders of two runs or more",
    ),
    "runs that do not exist": (
        ["compare", "{new}", "{new}2", "--out={new}"],
        "unknown run folder ",
    ),
    "a folder that is no run": (
        ["compare", "configs", "experiments"],
        "configs: no config.json and no result.json there; expected the folder of a finished run",
    ),
    "a comparison into a folder of something else": (
        ["compare", "{new}", "{new}2", "--out=configs"],
        "expected a folder that is new, empty, or of an earlier comparison of runs",
    ),
    "checkpoint and config": (
        ["evaluate", QUICKSTART, "--checkpoint={new}", "--workdir={new}"],
        "--checkpoint and --config: give one",
    ),
    "wrong checkpoint": (
        ["evaluate", "--checkpoint={new}", "--which=bset", "--workdir={new}"],
        "unknown --which 'bset'; nearest: best",
    ),
    "coordinator alone": (
        ["finetune", QUICKSTART, "--coordinator=127.0.0.1:1", "--workdir={new}"],
        "--coordinator, --num_processes and --process_id: give all or none",
    ),
    "a coordinator without a port": (
        [
            "finetune",
            QUICKSTART,
            "--coordinator=localhost",
            "--num_processes=2",
            "--process_id=0",
            "--workdir={new}",
        ],
        "--coordinator=localhost: expected HOST:PORT",
    ),
    "a process beyond their number": (
        [
            "finetune",
            QUICKSTART,
            "--coordinator=127.0.0.1:1",
            "--num_processes=2",
            "--process_id=2",
            "--workdir={new}",
        ],
        "--process_id=2 with --num_processes=2: expected 0 for the first process, and each of 0 to 1 once",
    ),
    "a folder is given for a spec": (
        ["ablate", "--spec=configs", "--workdir={new}"],
        "unknown spec 'configs'",
    ),
    "no spec": (["ablate", "--workdir={new}"], "--spec must be given; --help says how"),
    "a field that a spec's base does not have": (
        ["ablate", "--spec=configs/ablations/null.py", "--config.data.dir=x", "--workdir={new}"],
        "unknown config field 'data.dir'; nearest:",
    ),
    "an ablation in a foreign folder": (
        ["ablate", "--spec=configs/ablations/null.py", "--workdir=configs"],
        "--workdir configs is not the folder of an ablation (no spec.json) and not empty",
    ),
    "a look at test": (
        ["ablate", "--spec=configs/ablations/null.py", "--peek=test", "--workdir={new}"],
        "unknown --peek 'test'; known: validation",
    ),
    "launchers of a kind that there is not": (
        ["compare", QUICKSTART, "--executor=slrum", "--workdir={new}"],
        "unknown executor 'slrum'; nearest: slurm",
    ),
    "no launcher": (
        ["compare", QUICKSTART, "--executor=local", "--workers=0", "--workdir={new}"],
        "workers=0: expected an integer, 1 or more",
    ),
    "a resource without a value": (
        ["compare", QUICKSTART, "--executor=local", "--resources=gpus", "--workdir={new}"],
        "--resources: 'gpus': expected NAME=VALUE, such as gpus_per_node=1",
    ),
    "a resource that submitit does not know": (
        ["compare", QUICKSTART, "--executor=local", "--resources=gpu=1", "--workdir={new}"],
        "--executor=local: ",
    ),
    "launchers without an executor": (
        ["compare", QUICKSTART, "--workers=4", "--workdir={new}"],
        "--workers and --resources are of launchers: add --executor=local or slurm",
    ),
    "resources without an executor": (
        ["compare", QUICKSTART, "--resources=gpus_per_node=1", "--workdir={new}"],
        "--workers and --resources are of launchers: add --executor=local or slurm",
    ),
    "a plan and a look": (
        ["compare", QUICKSTART, "--dry_run", "--peek=validation", "--workdir={new}"],
        "--dry_run and --peek: give one",
    ),
    "a plan of finished runs": (
        ["compare", "one", "other", "--dry_run"],
        "one and --dry_run: expected --config to run methods over seeds",
    ),
    "a plan of a folder of something else": (
        ["compare", QUICKSTART, "--dry_run", "--workdir=configs"],
        "--workdir configs is not the folder of an ablation",
    ),
    "a comparison without a folder": (
        ["compare", QUICKSTART, "--config.compare.baseline=none"],
        "--workdir must be given",
    ),
    "a workdir that is a file": (
        ["finetune", QUICKSTART, "--config.init.weights=", "--workdir=setup.py"],
        "is a file",
    ),
    "a workdir of something else": (
        ["finetune", QUICKSTART, "--config.init.weights=", "--workdir=configs"],
        "is not the folder of a run",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("command", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_a_wrong_command(launcher, tmp_path, command, expected):
    new = tmp_path / "new"
    code, out, err = launcher.run(*(part.format(new=new) for part in command))
    assert code == 2, (out, err)
    assert err.startswith("error: ") and err.count("error: ") == 1
    assert expected in err
    assert "Traceback" not in err
    assert tree_of(tmp_path) == {}


def test_a_workdir_of_another_config(launcher, tmp_path):
    """The fields that differ are named; the earlier run is as it was."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = tiny_config(optim__learning_rate=0.05)
    (workdir / "config.json").write_text(config.to_json())
    before = tree_of(workdir)
    fields = arguments(
        init__weights="", optim__learning_rate=0.25, seed=3, data__batch_size=25, train__steps=20
    )
    code, _, err = launcher.run("finetune", QUICKSTART, *fields, f"--workdir={workdir}")
    assert code == 2, err
    assert "holds a run of another config" in err
    assert "optim.learning_rate: 0.05 in the folder, 0.25 given" in err
    assert "seed: 0 in the folder, 3 given" in err
    assert tree_of(workdir) == before


def test_the_module_as_a_user_starts_it(tmp_path):
    """Without the fork server: `python -m`, its own imports, its own exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.finetune", QUICKSTART, "--config.model.nam=x",
         f"--workdir={tmp_path / 'new'}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: unknown config field 'model.nam'; nearest: model.name")
    assert "Traceback" not in done.stderr
    assert tree_of(tmp_path) == {}
