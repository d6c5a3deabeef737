"""Run folders used again: longer runs, fields that change no number, folders of older versions."""

import json

import numpy as np
import pytest
from running import arguments, assert_same_bits, metric_lines, tiny_config, tree_of

from tl_jax.errors import InputError
from tl_jax.runs import training

pytestmark = pytest.mark.usefixtures("small_networks")
SCHEDULES = {
    "constant": ({"optim__schedule": "constant", "optim__warmup_steps": 2}, "train__steps", 4, 8),
    "step": (
        {"optim__schedule": "step", "optim__step_epochs": (0.5,), "train__steps": 0},
        "train__epochs",
        2.0,
        4.0,
    ),
}


def config_of(steps=4, **fields):
    changes = {
        "train__steps": steps,
        "train__eval_every_steps": 2,
        "data__validation_fraction": 0.1,
        "optim__schedule": "constant",
    }
    return tiny_config(**(changes | fields))


def stored(workdir):
    return json.loads((workdir / "config.json").read_text())


@pytest.mark.parametrize(("fields", "length", "short", "long"), SCHEDULES.values(), ids=SCHEDULES)
def test_an_extended_run_equals_one_that_was_longer_from_the_start(
    tmp_path, fields, length, short, long, capsys
):
    """4 updates and then 8, or 2 epochs of 2 updates and then 4."""
    whole = training.run(config_of(**(fields | {length: long})), tmp_path / "whole")
    training.run(config_of(**(fields | {length: short})), tmp_path / "run")
    capsys.readouterr()
    extended = training.run(config_of(**(fields | {length: long})), tmp_path / "run")
    assert "resumed at step 4 of 8" in capsys.readouterr().out
    assert_same_bits(tmp_path / "run", tmp_path / "whole")
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "whole")
    assert extended["steps"] == 8 and extended["selected_step"] == whole["selected_step"]
    assert extended["splits"] == whole["splits"]
    assert json.loads((tmp_path / "run" / "result_at_step_4.json").read_text())["steps"] == 4
    assert stored(tmp_path / "run") == stored(tmp_path / "whole")


@pytest.mark.parametrize(
    ("schedule", "raised", "expected"),
    [
        ("cosine", {"train__steps": 8}, "optim.schedule=cosine depends on the number of updates"),
        ("constant", {"train__steps": 2}, "train.steps: 4 in the folder, 2 given"),
        ("constant", {"train__steps": 8, "seed": 1}, "seed: 0 in the folder, 1 given"),
        ("step", {"train__steps": 8, "optim__step_steps": (1, 5)}, "optim.step_steps: [] in the"),
    ],
)  # fmt: skip
def test_what_is_no_longer_run_of_the_same_kind(tmp_path, schedule, raised, expected):
    (tmp_path / "run").mkdir()
    config = config_of(4, optim__schedule=schedule)
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    (tmp_path / "run" / "result.json").write_text('{"steps": 4}')
    before = tree_of(tmp_path)
    with pytest.raises(InputError) as error:
        training.run(changed(config, raised), tmp_path / "run")
    assert expected in str(error.value)
    if schedule == "cosine":
        assert "--config.init.weights=" in str(error.value)
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("every", [3, 0])
@pytest.mark.parametrize(
    ("short", "long", "given"),
    [
        ({"train__steps": 4}, {"train__steps": 8}, "train.steps=4, 8 is given"),
        (
            {"train__steps": 0, "train__epochs": 2.0},
            {"train__steps": 0, "train__epochs": 4.0},
            "train.epochs=2, 4 is given",
        ),
    ],
    ids=["steps", "epochs"],
)
def test_the_last_update_must_be_one_that_the_longer_run_evaluates(
    tmp_path, every, short, long, given
):
    """The shorter run may have chosen it; no longer run would have looked at it."""
    (tmp_path / "run").mkdir()
    intervals = {"train__eval_every_steps": every, "train__eval_every_epochs": 0.0}
    config = config_of(**(short | intervals))
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    (tmp_path / "run" / "result.json").write_text('{"steps": 4}')
    before = tree_of(tmp_path)
    with pytest.raises(InputError) as error:
        training.run(changed(config, long), tmp_path / "run")
    message = str(error.value)
    assert given in message and "after its last update, 4; a run of" in message
    assert ("train.eval_every_steps=3: every 3 updates" in message) == (every == 3)
    assert ("only at the end" in message) == (every == 0)
    assert tree_of(tmp_path) == before


def test_without_validation_every_length_can_be_extended(tmp_path):
    fields = {"data__validation_fraction": 0.0, "train__eval_every_steps": 3}
    training.run(config_of(4, **fields), tmp_path / "run")
    assert training.run(config_of(5, **fields), tmp_path / "run")["selected_step"] == 5


def changed(config, fields):
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def test_fields_that_change_no_number_never_block(tmp_path, capsys):
    config = config_of(4, report__mistakes=0)
    first = training.run(config, tmp_path / "run")
    before = tree_of(tmp_path)
    changed_fields = {
        "cache__dir": str(tmp_path / "elsewhere"),
        "cache__storage": "host",
        "cache__verify": 2,
        "data__cache_dir": str(tmp_path / "elsewhere"),
        "data__eval_batch_size": 100,
        "data__placement": "host",
        "data__workers": 1,
        "report__tensorboard": True,
        "report__mistakes": 3,
        "train__checkpoint_every_seconds": 1.0,
        "train__checkpoint_every_steps": 3,
        "train__log_every_steps": 3,
        "train__updates_per_dispatch": 2,
    }
    other = config_of(4, **changed_fields)
    again = training.run(other, tmp_path / "run")
    assert again == json.loads(json.dumps(first))
    assert tree_of(tmp_path) == before
    assert "run is finished: validation top-1" in capsys.readouterr().out
    other.train.steps = 6
    training.run(other, tmp_path / "run")
    training.run(config_of(6), tmp_path / "whole")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]
    assert stored(tmp_path / "run")["data"]["eval_batch_size"] == 100


def test_a_report_that_is_turned_on_afterwards(tmp_path, capsys):
    training.run(config_of(2), tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    capsys.readouterr()
    config = config_of(2, report__html=True)
    training.run(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "run is finished: " in out and "report.html is written again" in out
    assert "top-1" in (tmp_path / "run" / "report.html").read_text()
    before = tree_of(tmp_path)
    training.run(config, tmp_path / "run")
    assert "written again" not in capsys.readouterr().out
    assert tree_of(tmp_path) == before
    # The pictures are not made again.
    assert "predictions.npz" not in out
    with np.load(tmp_path / "run" / "predictions.npz") as saved:
        count = len(saved["mistake_indices"])
    training.run(config_of(2, report__html=True, report__mistakes=count + 1), tmp_path / "run")
    expected = (
        f"report.html is written again; report.mistakes={count + 1} applies to new runs only: the report "
        f"shows the {count} mistakes that predictions.npz holds\n"
    )
    assert expected in capsys.readouterr().out


def test_a_folder_of_a_version_without_a_field(tmp_path, capsys):
    """The field counts as its default."""
    config = config_of(2)
    training.run(config, tmp_path / "run")
    fields = stored(tmp_path / "run")
    del fields["cache"], fields["objective"]["l2_sp"], fields["report"]["mistakes"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(fields))
    training.run(config, tmp_path / "run")
    assert "run is finished" in capsys.readouterr().out
    config.train.steps = 3
    assert training.run(config, tmp_path / "run")["steps"] == 3
    assert stored(tmp_path / "run")["objective"]["l2_sp"] == 0.0
    (tmp_path / "run" / "config.json").write_text(json.dumps(fields))
    config.objective.l2_sp = 0.5
    with pytest.raises(InputError, match=r"objective\.l2_sp: 0\.0 in the folder, 0\.5 given"):
        training.run(config, tmp_path / "run")


def test_a_folder_of_a_version_with_other_names(tmp_path, capsys):
    """L2-SP and label smoothing were fields of `optim`; a run goes on where the values are the same."""
    config = config_of(2, objective__l2_sp=0.25, objective__label_smoothing=0.1)
    training.run(config, tmp_path / "run")
    fields = stored(tmp_path / "run")
    fields["optim"] |= {name: fields["objective"][name] for name in ("l2_sp", "label_smoothing")}
    del fields["objective"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(fields))
    training.run(config, tmp_path / "run")
    assert "run is finished" in capsys.readouterr().out
    config.objective.l2_sp = 0.5
    with pytest.raises(InputError, match=r"objective\.l2_sp: 0\.25 in the folder, 0\.5 given"):
        training.run(config, tmp_path / "run")


def test_as_a_user_types_it(launcher, tmp_path):
    """Validation accuracy is printed when it is measured, the time at the end is that of the command."""
    command = [
        "finetune",
        "--config=configs/quickstart.py",
        *arguments(
            init__weights="", data__image_size=8, data__validation_fraction=0.05, report__html="false",
            report__tensorboard="false", train__eval_every_steps=2, optim__warmup_steps=0,
        ),
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    constant = "--config.optim.schedule=constant"
    code, out, err = launcher.run(*command, constant, "--config.train.steps=4", small=True)
    assert code == 0, err
    assert [line.partition("top-1")[0] for line in err.splitlines() if "validation" in line] == [
        "step 2/4  validation ",
        "step 4/4  validation ",
    ]
    *_, result, last = out.splitlines()
    assert " s of training" in result
    seconds = float(last.removesuffix(" s in all, from the start of the command"))
    wall_seconds = json.loads((tmp_path / "run" / "result.json").read_text())["wall_seconds"]
    assert seconds > wall_seconds
    code, out, err = launcher.run(*command, constant, "--config.train.steps=6", small=True)
    assert code == 0 and "resumed at step 4 of 6" in out, err
    code, _, err = launcher.run(*command, "--config.train.steps=6", small=True)
    assert code == 2 and 'optim.schedule: "constant" in the folder, "cosine" given' in err
