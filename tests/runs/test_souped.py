"""Runs whose weights are the mean of those of their members, which are trained first and sealed."""

import json
import shutil

import filelock
import jax
import numpy as np
import pytest
from running import tiny_config
from safetensors.numpy import load_file

from tl_jax import console, load_run, trees
from tl_jax.augment.preprocessing import make_eval_transform
from tl_jax.errors import InputError
from tl_jax.runs import evaluate, soup, souped, source, target_statistics, together, training
from tl_jax.runs.setup import check_config, prepare, prepare_phases
from tl_jax.training import loops, soups

pytestmark = pytest.mark.usefixtures("small_networks")

RATES = (0.02, 0.2, 0.0)
MEMBERS = tuple((f"optim.learning_rate={rate}",) for rate in RATES)


def config_of(**fields):
    return tiny_config(
        **{
            "soup__name": "uniform",
            "soup__members": MEMBERS,
            "optim__schedule": "constant",
            "optim__learning_rate": 0.1,
            "data__validation_fraction": 0.2,
            **fields,
        }
    )


def plain_of(rate, **fields):
    """Returns the config of a member, as a run of its own."""
    return config_of(soup__name="", soup__members=(), optim__learning_rate=rate, **fields)


@pytest.fixture(scope="module")
def run(small_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("soup") / "run"
    return folder, training.run(config_of(), folder)


@pytest.fixture(scope="module")
def alone(small_networks, tmp_path_factory):
    """Returns the folders of the members as runs of their own, finished."""
    folder = tmp_path_factory.mktemp("alone")
    for rate in RATES:
        training.run(plain_of(rate), folder / str(rate))
    return [folder / str(rate) for rate in RATES]


def test_the_weights_are_the_mean_of_those_of_runs_of_their_own(run, alone):
    found = trees.flatten(load_run(run[0]).variables["params"])
    members = [trees.flatten(load_run(folder).variables["params"]) for folder in alone]
    for name, leaf in found.items():
        expected = np.mean([np.float64(member[name]) for member in members], axis=0)
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-8, err_msg=name)
    moved = [np.abs(found["head/kernel"] - member["head/kernel"]).max() for member in members]
    assert min(moved) > 1e-4


def test_statistics_are_those_of_the_training_images_under_the_mean(run):
    """By hand: one batch of all training images, normalised by itself."""
    variables = load_run(run[0]).variables
    (setup,) = prepare_phases(config_of())
    train = setup.splits["train"]
    images = make_eval_transform(setup.preprocessing)(train.gather(np.arange(len(train))))
    convolved = jax.lax.conv_general_dilated(
        images,
        variables["params"]["stem"]["conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stats = variables["batch_stats"]["stem"]["bn"]
    np.testing.assert_allclose(stats["mean"], convolved.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        stats["var"], np.asarray(convolved).var((0, 1, 2), ddof=1), rtol=1e-3
    )


def test_what_is_said_of_it(run, alone):
    folder, result = run
    facts = json.loads((folder / "soup.json").read_text())
    assert result["soup"] == facts and facts["name"] == "uniform"
    assert [row["added"] for row in facts["members"]] == [1, 2, 3]
    for row, of_its_own, changes in zip(facts["members"], alone, MEMBERS, strict=True):
        theirs = json.loads((of_its_own / "result.json").read_text())["splits"]["validation"]
        assert row["top1_accuracy"] == pytest.approx(theirs["top1_accuracy"])
        assert row["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert row["changes"] == changes[0] and row["seconds"] > 0
    assert result["selection"].startswith("uniform soup, the mean of 3 of 3 members")
    assert result["selected_by"] is None and result["steps"] == 0
    for number in (1, 2, 3):
        member = folder / "members" / str(number)
        assert (member / "sealed.json").is_file() and not (member / "result.json").exists()


def test_it_is_evaluated_as_it_was(run, tmp_path):
    folder, result = run
    found = evaluate.evaluate_run(folder, None, tmp_path / "evaluated", [])
    for name in ("loss", "top1_accuracy"):
        assert found["splits"]["test"][name] == pytest.approx(
            result["splits"]["test"][name], rel=1e-5
        )


def test_the_report_shows_the_members(tmp_path):
    training.run(config_of(report__html=True), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Members of the soup" in page and "optim.learning_rate=0.2" in page
    assert not (tmp_path / "run" / "members" / "1" / "report.html").exists()


def test_a_greedy_soup_is_chosen_by_validation(alone, tmp_path, monkeypatch):
    """The members and their order are those of the rule; their mean is exported."""
    asked = []

    def watched(values, measure, sign):
        asked.append(list(values))
        return soups.greedy(values, measure, sign)

    monkeypatch.setattr(souped, "greedy", watched)
    result = training.run(config_of(soup__name="greedy"), tmp_path / "run")
    rows = result["soup"]["members"]
    assert asked == [[row["top1_accuracy"] for row in rows]]
    added = sorted((row["added"], place) for place, row in enumerate(rows) if row["added"])
    chosen = [place for _, place in added]
    assert rows[chosen[0]]["top1_accuracy"] == max(row["top1_accuracy"] for row in rows)
    assert result["selected_by"] == "top1_accuracy"
    assert f"the mean of {len(chosen)} of 3 members" in result["selection"]
    best = max(row["top1_accuracy"] for row in rows)
    assert result["splits"]["validation"]["top1_accuracy"] >= best
    found = trees.flatten(load_run(tmp_path / "run").variables["params"])
    members = [trees.flatten(load_run(alone[place]).variables["params"]) for place in chosen]
    for name, leaf in found.items():
        expected = np.mean([np.float64(member[name]) for member in members], axis=0)
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(("metric", "sign"), [("top1_accuracy", 1), ("loss", -1)])
def test_a_greedy_soup_is_of_the_metric_that_selects(tmp_path, monkeypatch, metric, sign):
    signs = []

    def only_the_second(values, measure, sign):
        signs.append(sign)
        return (1,)

    monkeypatch.setattr(souped, "greedy", only_the_second)
    config = config_of(soup__name="greedy", train__select_by=metric)
    result = training.run(config, tmp_path / "run")
    assert signs == [sign] and result["selected_by"] == metric
    assert [row["added"] for row in result["soup"]["members"]] == [None, 1, None]
    # A soup of one is that member, running statistics and all.
    ours = load_file(tmp_path / "run" / "weights.safetensors")
    theirs = load_file(tmp_path / "run" / "members" / "2" / "weights.safetensors")
    for name, leaf in theirs.items():
        np.testing.assert_array_equal(ours[name], leaf, err_msg=name)


def test_statistics_that_all_members_have_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(target_statistics, "estimated", None)
    config = config_of(freeze__strategy="backbone", soup__members=MEMBERS[:2])
    training.run(config, tmp_path / "run")
    ours = load_file(tmp_path / "run" / "weights.safetensors")
    theirs = load_file(tmp_path / "run" / "members" / "1" / "weights.safetensors")
    same = [name for name in ours if np.array_equal(ours[name], theirs[name])]
    assert set(ours) - set(same) == {"linear.weight", "linear.bias"}


def test_what_the_run_freezes_its_members_may_train(tmp_path):
    members = tuple((f"optim.learning_rate={rate}", "freeze.strategy=none") for rate in RATES[:2])
    result = training.run(
        config_of(freeze__strategy="backbone", soup__members=members), tmp_path / "run"
    )
    assert result["frozen"]["changed"] == [] and result["frozen"]["frozen_leaves"] == 0
    ours = load_file(tmp_path / "run" / "weights.safetensors")
    theirs = [load_file(tmp_path / "run" / "members" / n / "weights.safetensors") for n in "12"]
    for name in ("conv1.weight", "linear.weight"):
        expected = np.mean([member[name] for member in theirs], axis=0)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-7)
        assert not np.array_equal(theirs[0][name], theirs[1][name])


def test_members_may_have_phases(tmp_path):
    members = tuple(
        (
            "phases=(('freeze.strategy=backbone','train.steps=1'),"
            f"('train.steps=1','optim.learning_rate={rate}'))",
        )
        for rate in (0.1, 0.2)
    )
    result = training.run(config_of(soup__members=members), tmp_path / "run")
    first = json.loads((tmp_path / "run" / "members" / "1" / "sealed.json").read_text())
    assert len(first["phases"]) == 2 and result["steps"] == 0


def test_an_interrupted_soup_goes_on(run, tmp_path):
    calls = []

    def stop():
        calls.append(0)
        return len(calls) > 9

    with pytest.raises(loops.Stopped):
        training.run(config_of(), tmp_path / "run", stop)
    assert (tmp_path / "run" / "members" / "1").is_dir()
    assert not (tmp_path / "run" / "result.json").exists()
    result = training.run(config_of(), tmp_path / "run")
    assert result["splits"] == run[1]["splits"]


def test_members_that_runs_share_are_trained_once(run, tmp_path):
    """The second soup, of the first two, trains none, and says what the first took for them."""
    shared = tmp_path / "shared"
    first = training.run(config_of(), tmp_path / "first", sources=shared)
    assert first["splits"] == run[1]["splits"] and "shared_seconds" not in first
    assert not (tmp_path / "first" / "members").exists()
    folders = sorted(path for path in shared.iterdir() if path.is_dir())
    times = {path: (path / "sealed.json").stat().st_mtime_ns for path in folders}
    assert len(folders) == 3 and not any((path / "result.json").exists() for path in folders)
    second = training.run(config_of(soup__members=MEMBERS[:2]), tmp_path / "second", sources=shared)
    assert times == {path: (path / "sealed.json").stat().st_mtime_ns for path in times}
    assert len([path for path in shared.iterdir() if path.is_dir()]) == 3
    took = {
        path.stem.removesuffix(".times"): json.loads(path.read_text())
        for path in shared.glob("*.times.json")
    }
    assert took.keys() == {path.name for path in folders}
    assert all(list(by) == ["../first"] for by in took.values())
    both = [
        took[source.shared_folder(member, shared).name]["../first"]
        for member in soup.member_configs(config_of())[:2]
    ]
    assert second["shared_seconds"] == pytest.approx(
        sum(both), abs=0.1
    )  # less a moment at each lock
    assert min(both) > 0.05


def test_what_a_run_trained_itself_is_not_shared(tmp_path):
    """Neither by a run that goes on, nor by one that is read later."""
    shared = tmp_path / "shared"
    sealed = training.run(config_of(), tmp_path / "run", sealed=True, sources=shared)
    result = training.run(config_of(), tmp_path / "run", sources=shared)
    assert "shared_seconds" not in sealed and "shared_seconds" not in result


def test_a_member_that_another_run_trains_is_waited_for(run, tmp_path, capsys):
    shared = tmp_path / "shared"
    shared.mkdir()
    (member, *_) = soup.member_configs(config_of())
    folder = source.shared_folder(member, shared)
    lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    asked = []

    def asked_to_stop():
        asked.append(folder.exists())
        return len(asked) > 2

    with lock, console.verbosity("normal"), pytest.raises(loops.Stopped):
        training.run(config_of(), tmp_path / "run", asked_to_stop, sources=shared)
    assert asked == [False] * 3
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("another run trains there; waiting for it") == 1
    result = training.run(config_of(), tmp_path / "run", sources=shared)
    assert result["splits"] == run[1]["splits"]


def test_sealed_and_read_later(run, tmp_path):
    sealed = training.run(config_of(), tmp_path / "run", sealed=True)
    assert "test" not in sealed["splits"]
    # The members are needed no more.
    shutil.rmtree(tmp_path / "run" / "members" / "2")
    (tmp_path / "run" / "members" / "2").mkdir()
    moment = (tmp_path / "run" / "soup.json").stat().st_mtime_ns
    result = training.run(config_of(), tmp_path / "run")
    assert result["splits"] == run[1]["splits"]
    assert (tmp_path / "run" / "soup.json").stat().st_mtime_ns == moment


def test_a_finished_soup_is_read(run, capsys):
    with console.verbosity("normal"):
        assert training.run(config_of(), run[0])["splits"] == run[1]["splits"]
    out = capsys.readouterr()
    assert "is finished" in out.out + out.err and "member 1 of 3" not in out.out + out.err


REFUSED = {
    "members of nothing": (
        {"soup__name": ""},
        "soup.members has 3 members without soup.name: no effect",
    ),
    "one member": ({"soup__members": MEMBERS[:1]}, "soup.members has 1 of them; expected two"),
    "no members": ({"soup__members": ()}, "soup.members has 0 of them; expected two"),
    "other data": (
        {"soup__members": (("data.examples_per_class=3",), ())},
        "soup.members: 'data.examples_per_class=3' is not of a member",
    ),
    "another seed": ({"soup__members": (("seed=3",), ())}, "'seed=3' is not of a member"),
    "an unknown name": ({"soup__name": "greddy"}, "unknown soup.name 'greddy'; nearest: greedy"),
    "an unknown field": (
        {"soup__members": (("optim.learning_rat=3.0",), ())},
        "soup.members=.*unknown config field .*nearest: optim.learning_rate",
    ),
    "a wrong value of a member": (
        {"soup__members": ((), ("optim.learning_rate=-1.0",))},
        r"soup.members, member 2: optim.learning_rate=-1.0: expected a number in \[0, inf\)",
    ),
    "a member that does not fit": (
        {"soup__members": ((), ("freeze.strategy=up_to:stag1",))},
        "soup.members, member 2: .*nearest: stage1",
    ),
    "a solved head": (
        {"solver__name": "ridge", "freeze__strategy": "backbone"},
        "solver.name=ridge with soup.name=uniform",
    ),
    "adapters": ({"model__adapters": "residual"}, "model.adapters=residual with soup.name=uniform"),
    "nothing held out": (
        {"soup__name": "greedy", "data__validation_fraction": 0.0},
        "soup.name=greedy: nothing is held out",
    ),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_trained(fields, message, tmp_path):
    with pytest.raises(InputError, match=rf"(?s){message}"):
        training.run(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"made by one process, not by 2"):
        soup.check_soup(config_of())


def test_commands_that_make_no_members(tmp_path):
    with pytest.raises(InputError, match=r"soup.name=uniform: only finetune, pretrain"):
        prepare(config_of())
    cached = config_of(freeze__strategy="backbone", cache__boundary="auto")
    assert together.why_alone(cached) == "members of a soup"


def test_a_longer_soup_is_another_one(run):
    with pytest.raises(InputError, match="their mean would be another one"):
        training.run(config_of(train__steps=50), run[0])


def test_members_have_all_else_of_the_run():
    config = config_of(data__batch_size=4, seed=7, report__html=True)
    check_config(config)
    first, *_, last = soup.member_configs(config)
    assert (first.optim.learning_rate, last.optim.learning_rate) == (0.02, 0.0)
    assert first.seed == 7 and first.data.batch_size == 4
    assert not first.soup.name and not first.soup.members and not first.report.html
    assert config.report.html and config.soup.members == MEMBERS
