"""For every field of a config: what changes in a run when the field changes, and that nothing else does.

A field that is not passed on changes nothing, and its test fails.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from fnmatch import fnmatch
from typing import Any

import jax
import numpy as np
import pytest
from parts import parts_of
from small import CACHED, VIEWS, config_with

from tl_jax import models, objectives, porting
from tl_jax.config import COMMAND_SECTIONS, ONLY_OF_UPDATES
from tl_jax.config import FIELDS as CONFIG_FIELDS

pytestmark = pytest.mark.usefixtures("small_networks")

# Contexts in which a field has an effect; "{weights}" and the like are files made for these tests.
PRETRAINED = {"init.weights": "{weights}"}
KEPT = PRETRAINED | {"init.head": "keep"}
FROZEN = {"freeze.strategy": "up_to:stage1"}
ADAMW = {"optim.name": "adamw"}
STEPWISE = {"optim.schedule": "step", "optim.step_steps": (6,)}
EPOCHS = {"train.steps": 0, "train.epochs": 4.0}
LONG = {"train.steps": 200}
HALF_A_TEST = {"data.test_split": "test[:50%]", "data.validation_fraction": 0.0}
DECAYED = {"objective.l2": ("head/.*=0.01",)}
EXPONENTIAL = {"optim.schedule": "exponential"}
PLATEAU = {"optim.schedule": "plateau"}
ALL_EXAMPLES = {"data.examples_per_class": 0}
DISTILLED = {"objective.distillation": 0.3, "objective.teacher": "{teacher}"}
CO_TUNED = PRETRAINED | {"objective.co_tuning": 2.3}
REMEMBERING = PRETRAINED | {"objective.lwf": 1.0}
SOUP = {"soup.name": "uniform", "soup.members": ((), ()), "data.validation_fraction": 0.2}
TWO_PHASES = {"phases": (("train.steps=5",), ())}
VIEWS_IN_PHASE = ("freeze.strategy=backbone", "cache.boundary=auto", "cache.views=2")
UNCACHED = CACHED | {"cache.boundary": ""}
SOLVED = {"freeze.strategy": "backbone", "solver.name": "ridge"}
ARRAYS = {"data.name": "npz:images.npz", "data.data_dir": "{folder}"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A change of a field.

    Attributes:
        value: the changed value.
        parts: what must change (see `parts_of`), separated by spaces; "" for nothing.
        context: other fields, set before and after.
    """

    value: Any
    parts: str
    context: dict[str, Any] = dataclasses.field(default_factory=dict)


STEP, BOTH_STEPS, RATE = "step", "step evaluation", "step schedule"
DATA = "train validation test"

FIELDS: dict[str, list[Case]] = {
    "seed": [
        Case(1, "order start draws"),
        # The backbone is the file's for every seed, the head is another one.
        Case(1, "order start draws", PRETRAINED),
    ],
    "phases": [
        Case((("train.steps=5", "optim.momentum=0.5"), ()), "step schedule order plan"),
        Case((("train.steps=5",), ("augment.flip=False",)), STEP, TWO_PHASES),
        Case((("train.steps=5", "optim.schedule=constant"), ()), RATE, TWO_PHASES),
        Case((("train.steps=5",), ("train.eval_every_steps=5",)), "plan", TWO_PHASES),
        Case((("train.steps=5",), VIEWS_IN_PHASE), "step evaluation order prefix", TWO_PHASES),
    ],
    "model.name": [Case("resnet20_cifar_b", "step evaluation start")],
    "model.stem": [Case("cifar", "step evaluation start", {"model.name": "resnet18"})],
    "model.classifier": [Case("pooled", "step evaluation start", {"model.name": "vgg11"})],
    "model.dropout": [Case(0.5, STEP), Case(0.2, STEP, {"model.name": "vgg11"})],
    "model.dtype": [Case("bfloat16", BOTH_STEPS)],
    "model.precision": [
        Case("highest", BOTH_STEPS),
        Case("high", "step evaluation prefix", CACHED),
        Case("high", BOTH_STEPS, {"data.placement": "host"}),
    ],
    # Of 12 rows; nothing that is not trained sees it.
    "model.batch_norm_rows": [
        Case(4, STEP),
        Case(6, STEP, {"model.batch_norm_rows": 3, "optim.accumulation": 2}),
        Case(4, STEP, {"model.name": "vgg11_bn"}),
        Case(4, "", CACHED),
        Case(4, "", {"train.eval_statistics": "image", "freeze.strategy": "backbone"}),
    ],
    "model.stoch_norm": [
        Case(0.5, STEP),
        Case(0.5, STEP, {"model.name": "vgg11_bn"}),
        Case(0.3, STEP, {"model.stoch_norm": 0.5, "optim.accumulation": 2}),
        Case(0.5, "", CACHED),
    ],
    "model.adapters": [
        Case("residual", "step evaluation start"),
        Case("low_rank", "step evaluation start", PRETRAINED),
    ],
    "model.adapter_rank": [
        Case(2, "step evaluation start", {"model.adapters": "low_rank"}),
    ],
    "model.zero_init_residual": [Case(True, "start")],
    # The text of the evaluation step changes too: it calls blocks in another way.
    "model.remat": [Case("blocks", BOTH_STEPS), Case("dots", BOTH_STEPS)],
    "init.weights": [Case("{weights}", "start"), Case("{others}", "start", PRETRAINED)],
    "init.head": [Case("keep", "start", PRETRAINED)],
    # Trained before the run itself: tests/runs/test_source.py.
    "init.source": [Case(("train.steps=3",), "")],
    "init.reset": [Case(("stage2/.*",), "start", PRETRAINED)],
    # Of a pass before the first update: tests/runs/test_target_statistics.py.
    "init.batch_stats": [Case("target", "")],
    "init.channel_order": [Case("bgr", "start", PRETRAINED)],
    "data.name": [Case("npz:{images}", DATA)],
    "data.data_dir": [Case("{other_folder}", DATA, ARRAYS)],
    "data.cache_dir": [Case("{folder}", "")],
    # Where all can be read; tests/runs/test_skipping.py has images that cannot.
    "data.unreadable": [Case("skip", "")],
    "data.train_split": [Case("train[:80%]", "train validation")],
    "data.test_split": [Case("test[:50%]", "test")],
    "data.validation_split": [Case("test[50%:]", "validation plan", HALF_A_TEST)],
    "data.validation_fraction": [Case(0.2, "train validation")],
    "data.examples_per_class": [Case(4, "train order plan")],
    "data.folds": [
        Case(3, DATA),
        Case(4, DATA, {"data.folds": 3}),
    ],
    "data.fold": [Case(2, DATA, {"data.folds": 3})],
    "data.seed": [
        Case(1, "train validation"),
        Case(1, DATA, {"data.folds": 3}),
        # Nothing held out: the few examples are others.
        Case(1, "train", {"data.validation_fraction": 0.0}),
    ],
    "data.batch_size": [Case(10, "step order plan")],
    "data.eval_batch_size": [Case(100, "evaluation")],
    "data.workers": [Case(1, "")],
    "data.placement": [Case("host", "dispatch")],
    "data.order": [
        Case("stored", "order"),
        Case("balanced", "order"),
        Case("balanced", "order", VIEWS),
    ],
    "data.image_size": [Case(10, BOTH_STEPS)],
    "preprocess.weights": [Case("resnet20_cifar.tin32", BOTH_STEPS, PRETRAINED)],
    "preprocess.mean": [Case((0.4, 0.5, 0.6), BOTH_STEPS)],
    "preprocess.std": [Case((0.2, 0.3, 0.4), BOTH_STEPS)],
    "preprocess.interpolation": [Case("bicubic", BOTH_STEPS)],
    "preprocess.resize": [Case(12, BOTH_STEPS)],
    "augment.crop_padding": [Case(2, STEP), Case(0, STEP)],
    "augment.flip": [Case(False, STEP), Case(False, STEP, {"augment.crop_padding": 0})],
    "augment.operations": [
        Case(("rotation=15",), STEP),
        Case(("rotation=20",), STEP, {"augment.operations": ("rotation=15",)}),
        Case(("rotation=20",), "prefix", VIEWS | {"augment.operations": ("rotation=15",)}),
    ],
    "augment.once": [Case(True, STEP)],
    # Each alone: of the crop, of an operation.
    "augment.fill": [
        Case("reflect", STEP, {"augment.crop_padding": 2}),
        Case(
            "edge",
            STEP,
            {
                "augment.operations": ("rotation=15",),
                "augment.crop_padding": 0,
                "augment.flip": False,
            },
        ),
        Case("wrap", "prefix", VIEWS | {"augment.operations": ("rotation=15",)}),
    ],
    "augment.mixing": [
        Case(("mixup=0.2",), STEP),
        Case(("mixup=0.3",), STEP, {"augment.mixing": ("mixup=0.2",)}),
        Case(("mixup=0.2",), STEP, CACHED),
    ],
    "augment.repeats": [Case(3, "order"), Case(2, "order", VIEWS)],
    "freeze.strategy": [
        Case("up_to:stage1", STEP),
        Case("all_but_bn", STEP),
        Case("only:stem", STEP),
    ],
    "freeze.patterns": [Case(("stem/.*",), STEP), Case(("stage2/.*",), STEP, FROZEN)],
    "freeze.batch_norm": [
        Case("update", STEP, FROZEN),
        Case("batch_stats_no_update", STEP, FROZEN),
    ],
    "objective.name": [Case("registered_for_tests", STEP)],
    "objective.weight": [Case(0.5, STEP)],
    "objective.label_smoothing": [Case(0.1, STEP)],
    "objective.l2": [Case(("head/kernel=0.01",), STEP), Case(("head/.*=0.02",), STEP, DECAYED)],
    # Classes of equal numbers of examples have weights of 1: the text of the step has them all the same.
    "objective.class_weighting": [Case("balanced", STEP), Case("effective", STEP, CACHED)],
    "objective.effective_beta": [
        Case(0.9, STEP, ALL_EXAMPLES | {"objective.class_weighting": "effective"})
    ],
    "objective.class_weights": [Case((1.0,) * 9 + (2.0,), STEP)],
    "objective.l2_sp": [Case(0.1, "step references")],
    "objective.delta": [Case(0.1, "step references"), Case(0.2, STEP, {"objective.delta": 0.1})],
    "objective.bss": [Case(0.1, STEP), Case(0.2, STEP, {"objective.bss": 0.1})],
    "objective.bss_k": [Case(2, STEP, {"objective.bss": 0.1})],
    # Learned when a run begins: tests/runs/test_attention.py.
    "objective.delta_attention": [Case(True, "", {"objective.delta": 0.1})],
    "objective.delta_boundaries": [Case(("stage1",), STEP, {"objective.delta": 0.1})],
    "objective.distillation": [Case(0.5, STEP, DISTILLED)],
    "objective.teacher": [Case("{other_teacher}", "references", DISTILLED)],
    # Of runs that are trained before: tests/runs/test_souped.py.
    "soup.name": [Case("greedy", "", SOUP)],
    "soup.members": [Case(((), ("optim.learning_rate=0.01",)), "", SOUP)],
    "objective.temperature": [Case(2.0, STEP, DISTILLED)],
    "objective.co_tuning": [
        Case(2.3, "step start references", PRETRAINED),
        Case(1.0, STEP, CO_TUNED),
    ],
    "objective.relationship": [Case("direct", "references", CO_TUNED)],
    "objective.source_temperature": [Case(2.0, "references", CO_TUNED)],
    "objective.lwf": [
        Case(1.0, "step start references", PRETRAINED),
        Case(0.5, STEP, REMEMBERING),
        # The head is there already.
        Case(1.0, "step references", CO_TUNED),
    ],
    "objective.lwf_temperature": [Case(4.0, STEP, REMEMBERING)],
    "optim.name": [Case("adamw", STEP)],
    "optim.learning_rate": [Case(0.2, RATE)],
    "optim.momentum": [Case(0.8, STEP)],
    "optim.nesterov": [Case(True, STEP)],
    "optim.b1": [Case(0.8, STEP, ADAMW)],
    "optim.b2": [Case(0.9, STEP, ADAMW)],
    "optim.eps": [Case(1e-6, STEP, ADAMW)],
    "optim.weight_decay": [Case(1e-3, STEP), Case(1e-3, STEP, ADAMW)],
    "optim.decay_bias_and_norm": [Case(True, STEP), Case(True, STEP, ADAMW)],
    "optim.clip_norm": [Case(1.0, STEP), Case(1.0, STEP, ADAMW)],
    "optim.schedule": [
        Case("constant", RATE),
        Case("exponential", RATE),
        Case("plateau", RATE),
    ],
    "optim.warmup_steps": [Case(3, RATE)],
    "optim.warmup_epochs": [Case(1.0, RATE)],
    "optim.step_epochs": [
        Case((2.0,), RATE, {"optim.schedule": "step", "optim.step_epochs": (1.0,)})
    ],
    "optim.step_steps": [Case((4, 8), RATE, STEPWISE)],
    "optim.step_decay": [
        Case(0.5, RATE, STEPWISE),
        Case(0.5, RATE, EXPONENTIAL),
        Case(0.5, STEP, PLATEAU),
    ],
    "optim.decay_epochs": [Case(3.0, RATE, EXPONENTIAL), Case(3.0, STEP, PLATEAU)],
    "optim.plateau_patience": [Case(2, STEP, PLATEAU)],
    "optim.final_fraction": [Case(0.1, RATE)],
    "optim.lr_multipliers": [Case(("head/.*=10",), STEP)],
    "optim.layerwise_decay": [Case(0.5, STEP)],
    "optim.sam_rho": [
        Case(0.05, STEP),
        Case(0.05, STEP, CACHED),
        Case(0.1, STEP, {"optim.accumulation": 2}),
    ],
    "optim.auto_rgn": [Case(True, STEP), Case(True, STEP, ADAMW)],
    "optim.accumulation": [Case(2, STEP)],
    # Of a run on the same activations: the shortest one, in which nothing is said of updates.
    "solver.name": [
        Case("ridge", "step schedule order plan dispatch solver", CACHED),
        Case("lbfgs", "solver", SOLVED),
        Case("nearest_mean", "solver", SOLVED),
    ],
    "solver.strengths": [
        Case((0.1, 1.0), "solver", SOLVED),
        Case((2.0,), "solver", SOLVED | {"solver.strengths": (1.0,)}),
    ],
    "average.name": [Case("ema", STEP), Case("swa", STEP), Case("wise_ft", STEP, KEPT)],
    # Of the weights that are evaluated: tests/runs/test_wise_ft.py.
    "average.alpha": [Case(0.3, "", KEPT | {"average.name": "wise_ft"})],
    "average.decay": [Case(0.9, STEP, {"average.name": "ema"})],
    "average.start": [Case(0.5, STEP, {"average.name": "swa"})],
    "average.choose": [Case("averaged", "", {"average.name": "ema"})],
    "average.every_steps": [Case(3, STEP, {"average.name": "swa"})],
    "train.epochs": [Case(5.0, "step schedule plan", EPOCHS)],
    "train.steps": [Case(15, "step schedule plan")],
    "train.updates_per_dispatch": [Case(3, "dispatch")],
    "train.log_every_steps": [Case(5, "plan", LONG)],
    "train.eval_every_epochs": [Case(2.0, "plan")],
    "train.eval_every_steps": [Case(5, "plan")],
    "train.fit_to_data": [Case(True, "step order plan")],
    "train.rule": [
        Case(
            "bit", "step schedule order plan", {"train.fit_to_data": True, "optim.warmup_steps": 0}
        )
    ],
    "train.patience": [Case(2, "plan", {"train.eval_every_steps": 5})],
    "train.eval_statistics": [Case("image", "evaluation")],
    "train.select_by": [Case("macro_f1", "selection"), Case("loss", "selection")],
    # Of GPUs: tests/runs/test_numerics.py.
    "train.deterministic": [Case(True, "")],
    "train.checkpoint_every_seconds": [Case(1.0, "")],
    "train.checkpoint_every_steps": [Case(5, "plan")],
    "cache.boundary": [
        Case("auto", "step evaluation prefix", UNCACHED),
        Case("stage1", "step evaluation prefix", CACHED),
    ],
    "cache.views": [Case(2, "order prefix", VIEWS)],
    "cache.draw": [Case("random", "order", VIEWS)],
    "cache.view_seed": [Case(1, "prefix", VIEWS)],
    "cache.dtype": [Case("bfloat16", "step evaluation prefix", CACHED)],
    "cache.storage": [Case("host", "dispatch", CACHED | {"cache.storage": "device"})],
    "cache.dir": [Case("{folder}", "", CACHED)],
    "cache.verify": [Case(1, "", CACHED)],
    "cache.whole": [Case(True, "", CACHED)],
    "parallel.mode": [Case("pmap", "dispatch")],
    "parallel.devices": [Case(2, "dispatch")],
    # What a run says of it: tests/runs/test_protocol.py.
    "report.protocol": [Case("vtab_1k", "")],
    "report.html": [Case(False, "")],
    "report.tensorboard": [Case(False, "")],
    "report.mistakes": [Case(3, "")],
    "report.scatter": [Case(50, "")],
}

CASES = [
    pytest.param(name, case, id=f"{name}={case.value}" + (f"-{number}" if number else ""))
    for name, cases in FIELDS.items()
    for number, case in enumerate(cases)
]


STARTS = ("weights", "others")


def _write_teacher(folder, weights):
    """Writes what is read of a finished run."""
    folder.mkdir()
    shutil.copy(weights, folder / "weights.safetensors")
    described = {"image_size": 8, "resize": 0, "interpolation": "bilinear"}
    described |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "preprocessing.json").write_text(json.dumps(described))
    (folder / "config.json").write_text(json.dumps({"model": {"name": "resnet20_cifar"}}))
    (folder / "result.json").write_text("{}")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Registers an objective for configs to name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives.contract, "_REGISTERED", {})
        objectives.register("registered_for_tests", lambda outputs: (outputs.logits.mean(), {}))
        yield


@pytest.fixture(scope="module")
def files(small_networks, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Returns the files that values of fields name."""
    root = tmp_path_factory.mktemp("files")
    model = models.create_model("resnet20_cifar", 10)
    for seed, name in enumerate(STARTS):
        variables = models.init_variables(model, jax.random.key(10 + seed))
        state_dict = porting.export_state_dict(variables, naming="cifar")
        porting.save_state_dict(root / f"{name}.safetensors", state_dict)
    for seed, name in enumerate(("folder", "other_folder")):
        rng = np.random.default_rng(seed)
        arrays = {}
        for split, count in {"train": 100, "test": 30}.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(count) % 10
        (root / name).mkdir()
        np.savez(root / name / "images.npz", **arrays)
        _write_teacher(
            root / name.replace("folder", "teacher"), root / f"{STARTS[seed]}.safetensors"
        )
    # 32 px, as digits: only the pixels are others.
    wide = {
        key: value.repeat(4, 1).repeat(4, 2) if value.ndim == 4 else value
        for key, value in arrays.items()
    }
    np.savez(root / "wide.npz", **wide)
    return {
        "weights": root / "weights.safetensors",
        "others": root / "others.safetensors",
        "teacher": root / "teacher",
        "other_teacher": root / "other_teacher",
        "folder": root / "folder",
        "other_folder": root / "other_folder",
        "images": root / "wide.npz",
    }


@pytest.fixture(scope="module")
def parts(files):
    """Returns what gives the parts of a run with some fields changed, each run put together once."""

    @functools.cache
    def found(changes: tuple[tuple[str, Any], ...]) -> dict[str, str]:
        return parts_of(config_with(dict(changes)))

    def parts_with(changes: dict[str, Any]) -> dict[str, str]:
        filled = {
            name: value.format(**files) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        return found(tuple(sorted(filled.items())))

    return parts_with


HERE = pathlib.Path(__file__).parent
# What cannot be put together before another run is trained.
ELSEWHERE = {"objective.teacher_source": "../runs/test_teacher_source.py"}


def test_every_field_is_in_the_table():
    run_fields = [
        name for name, field in CONFIG_FIELDS.items() if field.section not in COMMAND_SECTIONS
    ]
    assert sorted((*FIELDS, *ELSEWHERE)) == sorted(run_fields)
    assert all((HERE / path).is_file() for path in ELSEWHERE.values())
    assert all(FIELDS.values())


# Where, when and with how many images at once: the numbers stay what they are.
PARTS_WITHOUT_NUMBERS = {"dispatch", "plan"}
# The number of images that are evaluated at once is a shape of the evaluation step.
SHAPE_ALONE = {"data.eval_batch_size": {"evaluation"}}


def test_fields_without_effect_on_the_result_change_no_part_that_decides_numbers():
    """A run folder is the same run whatever they are: wrongly among them, a field is silently ignored."""
    for name, cases in FIELDS.items():
        if not CONFIG_FIELDS[name].changes_numbers:
            changed = {part for case in cases for part in case.parts.split()}
            assert changed <= PARTS_WITHOUT_NUMBERS | SHAPE_ALONE.get(name, set()), name


def test_fields_that_choose_the_step_or_the_program_are_part_of_the_run():
    """They change plan, selection or dispatch alone, and with them the selected step or the rounding."""
    for name in (
        "train.eval_every_epochs",
        "train.eval_every_steps",
        "train.patience",
        "train.select_by",
        "train.deterministic",
        "parallel.mode",
        "parallel.devices",
    ):
        assert CONFIG_FIELDS[name].changes_numbers, name


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_field_changes_what_it_says_and_nothing_else(parts, name, case):
    before, after = parts(case.context), parts(case.context | {name: case.value})
    changed = {part for part in before if before[part] != after[part]}
    assert changed == set(case.parts.split())


def test_what_only_updates_look_at_changes_nothing_where_a_head_is_solved(parts):
    """All of it at once: a shared base may say anything."""
    changes = {
        name: cases[0].value
        for name, cases in FIELDS.items()
        if any(fnmatch(name, known) for known in ONLY_OF_UPDATES)
    }
    assert {"train.steps", "optim.learning_rate", "augment.crop_padding"} <= changes.keys()
    apart = {name: changes.pop(name) for name in ("train.epochs", "optim.step_steps")}
    for changed in (changes, apart):
        assert parts(SOLVED | changed) == parts(SOLVED)


def test_the_same_config_gives_the_same_parts(files):
    """Or a change of chance would count as the effect of a field."""
    assert parts_of(config_with({})) == parts_of(config_with({}))
