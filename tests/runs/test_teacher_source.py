"""Teachers that a run describes: trained first on the same images, sealed, and learned from."""

import json

import numpy as np
import pytest
from running import tiny_config
from safetensors.numpy import load_file

from tl_jax import ablation, load_run
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.runs.setup import check_config, prepare
from tl_jax.runs.teacher import teacher_config
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")

TEACHER = ("optim.learning_rate=0.2",)


def config_of(**fields):
    return tiny_config(
        **{
            "objective__distillation": 0.7,
            "objective__temperature": 2.0,
            "objective__teacher_source": TEACHER,
            "optim__schedule": "constant",
            "optim__learning_rate": 0.05,
            **fields,
        }
    )


def plain_of(**fields):
    return config_of(
        objective__distillation=0.0,
        objective__temperature=4.0,
        objective__teacher_source=(),
        **fields,
    )


@pytest.fixture(scope="module")
def run(small_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "run"
    return folder, training.run(config_of(), folder)


def assert_same_weights(first, second):
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_it_is_the_run_that_learns_from_the_folder_of_that_teacher(run, tmp_path):
    training.run(plain_of(optim__learning_rate=0.2), tmp_path / "teacher")
    assert_same_weights(run[0] / "teacher", tmp_path / "teacher")
    student = config_of(objective__teacher_source=(), objective__teacher=str(tmp_path / "teacher"))
    result = training.run(student, tmp_path / "student")
    assert_same_weights(run[0], tmp_path / "student")
    assert result["splits"] == run[1]["splits"]


def test_the_test_split_of_a_teacher_is_not_read(run):
    folder = run[0] / "teacher"
    assert not (folder / "result.json").exists() and not (folder / "report.html").exists()
    assert "test" not in json.loads((folder / "sealed.json").read_text())["splits"]


def test_a_finished_student_needs_its_teacher_no_more(run, tmp_path):
    config = config_of()
    training.run(config, tmp_path / "run")
    (tmp_path / "run" / "teacher").rename(tmp_path / "gone")
    assert training.run(config, tmp_path / "run")["splits"] == run[1]["splits"]
    assert not (tmp_path / "run" / "teacher").exists()
    assert load_run(tmp_path / "run").predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 10)


def test_a_stop_in_the_teacher_goes_on_there(run, tmp_path):
    with pytest.raises(loops.Stopped):
        training.run(config_of(), tmp_path / "run", lambda: True)
    assert not (tmp_path / "run" / "config.json").exists()
    assert training.run(config_of(), tmp_path / "run")["splits"] == run[1]["splits"]


def test_a_teacher_is_the_run_without_objective_and_phases():
    config = config_of(
        phases=(("freeze.strategy=backbone", "train.steps=1"), ("train.steps=1",)),
        data__examples_per_class=5,
        init__reset=(),
        report__html=True,
        freeze__strategy="up_to:stem",
    )
    found = teacher_config(config)
    assert found.objective.distillation == 0 and not found.objective.teacher_source
    assert found.phases == () and found.data.examples_per_class == 5 and not found.report.html
    assert found.freeze.strategy == "up_to:stem" and found.optim.learning_rate == 0.2
    assert config.phases and config.report.html


def test_students_of_an_ablation_share_a_teacher(tmp_path):
    """One for each seed; students that differ in what a teacher leaves out have the same one."""
    base = config_of(data__validation_fraction=0.2)
    spec = ablation.Spec(
        base,
        variants={"a": (), "b": ("objective.temperature=3.0",)},
        seeds=(0, 1),
    )
    ablation.ablate(spec, tmp_path / "ablation")
    teachers = [path.parent for path in (tmp_path / "ablation").glob("sources/*/sealed.json")]
    assert len(teachers) == 2
    # Of a teacher nobody asks for test; students are read.
    assert not list((tmp_path / "ablation").glob("sources/*/result.json"))


REFUSED = {
    "without distillation": (
        {"objective__distillation": 0.0, "objective__temperature": 4.0},
        r"objective.teacher_source=.* without objective.distillation has no effect",
    ),
    "beside a folder": (
        {"objective__teacher": "somewhere"},
        "objective.teacher=somewhere and objective.teacher_source=.*: give one",
    ),
    "an unknown field": (
        {"objective__teacher_source": ("optim.learning_rat=1.0",)},
        "objective.teacher_source=.*unknown config field .*nearest: optim.learning_rate",
    ),
    "a teacher of its own": (
        {"objective__teacher_source": ("objective.teacher_source=('seed=1',)",)},
        "a teacher has no teacher that is trained first",
    ),
    "in a phase": (
        {"phases": (("objective.teacher_source=('seed=1',)",),)},
        "objective.teacher_source is of the whole run, not of a phase",
    ),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_trained(fields, message, tmp_path):
    with pytest.raises(InputError, match=rf"(?s){message}"):
        training.run(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_teacher_names_it(tmp_path):
    config = config_of(objective__teacher_source=("freeze.strategy=up_to:stag1",))
    with pytest.raises(InputError, match=r"objective.teacher_source: .*nearest: stage1"):
        training.run(config, tmp_path / "run")


def test_commands_that_train_no_teacher():
    check_config(config_of())
    with pytest.raises(InputError, match=r"objective.teacher_source=.*: only finetune, pretrain"):
        prepare(config_of())


def test_a_longer_student_is_another_one(run):
    with pytest.raises(InputError, match="would be another one"):
        training.run(config_of(train__steps=50), run[0])
