"""Saving, resuming, damage, retention, full disks and other meshes."""

import errno
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tl_jax import files
from tl_jax.checkpointing import Checkpointer, restore_params, verification
from tl_jax.errors import InputError
from tl_jax.training.state import TrainState

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


def make_state(step: int = 0, shift: float = 0.0) -> TrainState:
    """Returns a state with a frozen backbone: its optimizer state is full of masked nodes."""
    params = {
        "stem": {"conv": {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) + shift}},
        "head": {"kernel": jnp.full((3, 2), 0.5 + shift, jnp.float32), "bias": jnp.zeros(2)},
    }
    frozen_mask = {
        "stem": {"conv": {"kernel": True}},
        "head": {"kernel": False, "bias": False},
    }
    tx = optax.transforms.selective_transform(optax.adamw(0.1), freeze_mask=frozen_mask)
    batch_stats = {"stem": {"bn": {"mean": jnp.array([1.5, -0.0]), "var": jnp.array([2.0, 3.0])}}}
    return TrainState(jnp.int32(step), jnp.int32(7), params, batch_stats, tx.init(params))


def assert_same_bits(restored, expected):
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True)
    for found, wanted in pairs:
        assert found.dtype == wanted.dtype
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()


def saved_steps(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


@pytest.fixture
def checkpointer(tmp_path):
    with Checkpointer(tmp_path / "checkpoints") as made:
        yield made


def test_restores_the_same_structure_and_bits(checkpointer):
    state = make_state(step=12, shift=0.25)
    checkpointer.save(state)
    assert_same_bits(checkpointer.restore_latest(make_state()), state)


def test_what_earlier_versions_kept_besides_is_left_out(checkpointer):
    """The norm of the last gradient was a state of the optimizer; where L2-SP's start was, the run ends."""
    state = make_state(step=12)
    older = {"norm": jnp.float32(3.0)}
    checkpointer.save(state.replace(opt_state=(state.opt_state, older)))
    restored = checkpointer.restore_latest(state.replace(opt_state=(state.opt_state, {})))
    assert_same_bits(restored.opt_state[0], state.opt_state)
    older["start"] = {"stem": {"kernel": jnp.ones(2)}}
    checkpointer.save(state.replace(opt_state=(state.opt_state, older)))
    with pytest.raises(InputError, match=r"opt_state/1/start/stem/kernel: not expected"):
        checkpointer.restore_latest(state.replace(opt_state=(state.opt_state, {})))


def test_references_are_in_no_checkpoint(checkpointer):
    references = {"source": {"params": {"stem": jnp.ones(2)}}}
    checkpointer.save(make_state(step=12).replace(references=references))
    template = make_state().replace(references=references)
    assert_same_bits(checkpointer.restore_latest(template), make_state(step=12))


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, -0.0, np.inf, -np.inf, 1e-45], np.float32),
        np.array([0x7FC00001, 0xFFC12345], np.uint32).view(np.float32),
        np.full(4, -0.0, np.float32),
        np.array([1.5, -2.25], jnp.bfloat16),
        np.array([True, False]),
        np.array([[2**31 - 1], [-(2**31)]], np.int32),
    ],
    ids=["signed_zero_and_denormal", "nan_payload", "all_minus_zero", "bfloat16", "bool", "int32"],
)
def test_keeps_unusual_values_bit_for_bit(checkpointer, values):
    state = make_state().replace(opt_state=({"trace": jnp.asarray(values)}, optax.EmptyState()))
    checkpointer.save(state)
    restored = checkpointer.restore_latest(state)
    assert_same_bits(restored, state)
    assert np.asarray(restored.opt_state[0]["trace"]).tobytes() == values.tobytes()


def test_interrupted_and_resumed_equals_uninterrupted(checkpointer):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3, momentum=0.9))

    @jax.jit
    def advance(state):
        grads = jax.grad(lambda p: jnp.sum(jnp.sin(p["w"] * 3.7) ** 2))(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state)

    params = {"w": jnp.linspace(-1.0, 1.0, 7)}
    initial = TrainState(jnp.int32(0), jnp.int32(7), params, {}, tx.init(params))
    whole = initial
    for _ in range(6):
        whole = advance(whole)
        if int(whole.step) == 3:
            checkpointer.save(whole)
    resumed = checkpointer.restore_latest(initial)
    assert int(resumed.step) == 3
    for _ in range(3):
        resumed = advance(resumed)
    assert_same_bits(resumed, whole)


def test_restores_from_shapes_alone(checkpointer):
    state = make_state(step=3, shift=1.0)
    checkpointer.save(state)
    assert_same_bits(checkpointer.restore_latest(jax.eval_shape(make_state)), state)


def test_a_restored_state_can_be_donated(checkpointer):
    checkpointer.save(make_state(step=3))
    add = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    restored = add(checkpointer.restore_latest(make_state()))
    assert int(restored.step) == 4
    assert_same_bits(checkpointer.restore_latest(make_state()), make_state(step=3))


def test_a_restored_state_compiles_no_second_step(checkpointer):
    advance = jax.jit(lambda state: state.replace(step=state.step + 1))
    state = advance(make_state())
    advance(state)
    checkpointer.save(state)
    compiled = advance._cache_size()
    advance(checkpointer.restore_latest(state))
    assert advance._cache_size() == compiled


def test_nothing_to_restore(checkpointer):
    assert checkpointer.restore_latest(make_state()) is None
    assert checkpointer.restore_best(make_state()) is None
    assert checkpointer.latest_step() is None
    assert checkpointer.best_step() is None


def test_keeps_the_latest_two_and_the_best(checkpointer, tmp_path):
    for step, accuracy in [(10, 0.2), (20, 0.7), (30, 0.6), (40, 0.7), (50, 0.5), (60, None)]:
        metrics = None if accuracy is None else {"top1_accuracy": accuracy, "loss": 1.0}
        checkpointer.save(make_state(step, shift=step), metrics)
    checkpointer.wait()
    assert saved_steps(tmp_path / "checkpoints") == [20, 50, 60]
    assert checkpointer.best_step() == 20
    assert checkpointer.latest_step() == 60
    assert_same_bits(checkpointer.restore_best(make_state()), make_state(20, shift=20))
    assert_same_bits(checkpointer.restore_latest(make_state()), make_state(60, shift=60))


def test_best_may_be_the_smallest_and_is_never_nan(tmp_path):
    with Checkpointer(tmp_path, best_metric="loss", best_mode="min") as checkpointer:
        for step, loss in [(1, 2.0), (2, 0.5), (3, float("nan")), (4, 0.9), (5, np.float32(3.0))]:
            checkpointer.save(make_state(step), {"loss": loss})
        assert checkpointer.best_step() == 2
    with Checkpointer(tmp_path, best_metric="loss", best_mode="min") as again:
        assert again.best_step() == 2


def test_what_is_better_than_all_saved_and_all_asked_about(checkpointer, tmp_path):
    asked = [0.3, 0.2, 0.3, float("nan"), 0.4]
    assert [checkpointer.is_best({"top1_accuracy": value}) for value in asked] == [
        True,
        False,
        False,
        False,
        True,
    ]
    checkpointer.save(make_state(3), {"top1_accuracy": 0.5})
    checkpointer.wait()
    with Checkpointer(tmp_path / "checkpoints") as resumed:
        assert not resumed.is_best({"top1_accuracy": 0.5})
        assert resumed.is_best({"top1_accuracy": 0.6})
        assert not resumed.is_best({"top1_accuracy": 0.55})
        with pytest.raises(InputError, match="'top1_accuracy'"):
            resumed.is_best({"loss": 0.1})


def test_less_may_be_better(tmp_path):
    with Checkpointer(tmp_path, best_metric="loss", best_mode="min") as checkpointer:
        found = [checkpointer.is_best({"loss": value}) for value in (2.0, 1.0, 1.5)]
        assert found == [True, True, False]


def test_saving_a_step_again_replaces_it_and_keeps_its_metrics(checkpointer, tmp_path):
    checkpointer.save(make_state(10), {"top1_accuracy": 0.9})
    checkpointer.save(make_state(10, shift=4.0))
    assert_same_bits(checkpointer.restore_best(make_state()), make_state(10, shift=4.0))
    assert saved_steps(tmp_path / "checkpoints") == [10]


def test_metrics_without_the_best_one_are_refused(checkpointer, tmp_path):
    with pytest.raises(InputError, match="'top1_accuracy'; nearest: top5_accuracy"):
        checkpointer.save(make_state(1), {"top5_accuracy": 0.5, "loss": 1.0})
    assert saved_steps(tmp_path / "checkpoints") == []


def test_unknown_mode_and_unusable_folder(tmp_path):
    with pytest.raises(InputError, match="unknown best_mode 'maxi'; nearest: max"):
        Checkpointer(tmp_path, best_mode="maxi")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="file"):
        Checkpointer(tmp_path / "file" / "checkpoints")
    assert (tmp_path / "file").read_text() == "kept"


def _flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _drop_last_line(path):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


_DAMAGES = {
    "flipped": _flip_byte,
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "lost": lambda path: path.unlink(),
    "last_line_lost": _drop_last_line,
}


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(make_state(10, shift=1.0), {"top1_accuracy": 0.5})
        checkpointer.save(make_state(20, shift=2.0), {"top1_accuracy": 0.9})
    return folder


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES.keys())
def test_damage_to_any_file_of_the_newest_is_found(two_checkpoints, tmp_path, damage):
    names = [p.relative_to(two_checkpoints) for p in (two_checkpoints / "20").rglob("*")]
    names = [name for name in names if (two_checkpoints / name).is_file()]
    assert len(names) > 5
    for place, name in enumerate(names):
        if (two_checkpoints / name).stat().st_size == 0 and damage is not _DAMAGES["lost"]:
            continue
        folder = tmp_path / str(place)
        shutil.copytree(two_checkpoints, folder)
        damage(folder / name)
        with Checkpointer(folder) as checkpointer:
            assert checkpointer.latest_step() == 10, name
            assert checkpointer.best_step() == 10, name
    with Checkpointer(folder) as checkpointer:
        with pytest.warns(UserWarning, match="skipped the damaged checkpoint .*20"):
            restored = checkpointer.restore_latest(make_state())
        assert_same_bits(restored, make_state(10, shift=1.0))


def test_an_empty_newest_folder_is_skipped(two_checkpoints, tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    (folder / "99").mkdir()
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.latest_step() == 20
        with pytest.warns(UserWarning, match="99: SHA256SUMS is missing") as caught:
            restored = checkpointer.restore_latest(make_state())
        assert pathlib.Path(caught[0].filename) == pathlib.Path(__file__)
        assert_same_bits(restored, make_state(20, shift=2.0))
        assert "99" not in caplog.text
        checkpointer.save(make_state(30))
        checkpointer.wait()
        assert saved_steps(folder) == [20, 30, 99]
        checkpointer.save(make_state(40))
        checkpointer.wait()
        assert saved_steps(folder) == [20, 30, 40, 99]
        assert checkpointer.latest_step() == 40


def test_a_damaged_step_is_replaced_when_the_run_comes_to_it_again(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    (folder / "20" / "checkpoint.json").unlink()
    with Checkpointer(folder) as checkpointer:
        with pytest.warns(UserWarning, match="checkpoint.json is missing"):
            assert int(checkpointer.restore_latest(make_state()).step) == 10
        checkpointer.save(make_state(20, shift=5.0))
        assert_same_bits(checkpointer.restore_latest(make_state()), make_state(20, shift=5.0))


def test_a_copy_under_another_step_is_no_checkpoint(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    shutil.copytree(folder / "10", folder / "500")
    with Checkpointer(folder) as checkpointer, pytest.warns(UserWarning, match="copy of step 10"):
        assert int(checkpointer.restore_latest(make_state()).step) == 20


def test_nothing_verifies(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    for step in ("10", "20"):
        (folder / step / "SHA256SUMS").unlink()
    with Checkpointer(folder) as checkpointer:
        with pytest.warns(UserWarning) as caught:
            assert checkpointer.restore_latest(make_state()) is None
        assert len(caught) == 2
    with pytest.warns(UserWarning), pytest.raises(InputError, match="no latest checkpoint"):
        restore_params(folder, "latest")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_checksums_are_those_of_sha256sum(two_checkpoints):
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=two_checkpoints / "20", check=True)


def test_another_structure_lists_every_difference(checkpointer):
    checkpointer.save(make_state(5))
    template = make_state()
    template = template.replace(
        params={
            "stem": {"conv": {"kernel": jnp.zeros((2, 4))}},
            "head": {"kernel": jnp.zeros((3, 2), jnp.bfloat16), "scale": jnp.zeros(2)},
        },
        opt_state=(),
    )
    with pytest.raises(InputError) as raised:
        checkpointer.restore_latest(template)
    message = str(raised.value)
    for line in (
        "params/head/bias: not expected",
        "params/head/kernel: dtype float32, expected bfloat16",
        "params/head/scale: missing",
        "params/stem/conv/kernel: shape (2, 3), expected (2, 4)",
    ):
        assert line in message
    assert message.count("opt_state") == len(jax.tree.leaves(make_state().opt_state))


def test_restore_params_needs_no_template(two_checkpoints):
    best = restore_params(two_checkpoints)
    assert sorted(best) == ["batch_stats", "params"]
    assert_same_bits(best["params"], make_state(shift=2.0).params)
    assert_same_bits(best["batch_stats"], make_state().batch_stats)
    assert isinstance(best["params"]["head"]["bias"], np.ndarray)


def test_restore_params_refuses(tmp_path, checkpointer):
    checkpointer.save(make_state(3))
    checkpointer.wait()
    folder = tmp_path / "checkpoints"
    assert_same_bits(restore_params(folder, "latest")["params"], make_state().params)
    with pytest.raises(InputError, match=r"no best checkpoint .* ask for 'latest'"):
        restore_params(folder)
    with pytest.raises(InputError, match="unknown checkpoint 'lates'; nearest: latest"):
        restore_params(folder, "lates")
    with pytest.raises(InputError, match="absent is no folder"):
        restore_params(tmp_path / "absent")


def test_leftovers_of_killed_saves_are_ignored_and_cleared(checkpointer, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpointer.save(make_state(10))
    checkpointer.wait()
    leftovers = ["20.tmp", "30.orbax-checkpoint-tmp", "30.orbax-checkpoint-tmp-17"]
    foreign = ["notes", "notes.tmp"]
    for name in leftovers + foreign:
        (folder / name / "state").mkdir(parents=True)
    assert checkpointer.latest_step() == 10
    assert int(checkpointer.restore_latest(make_state()).step) == 10
    checkpointer.save(make_state(20))
    checkpointer.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "notes", "notes.tmp"]


def test_a_kill_while_replacing_loses_nothing(checkpointer, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpointer.save(make_state(10), {"top1_accuracy": 0.9})
    checkpointer.wait()
    (folder / "10").rename(folder / "10.old")
    checkpointer.save(make_state(20), {"top1_accuracy": 0.1})
    assert checkpointer.best_step() == 10


def test_a_save_that_fails_leaves_nothing_behind(checkpointer, tmp_path, monkeypatch):
    checkpointer.save(make_state(10))
    checkpointer.wait()

    def fail(path):
        raise PermissionError(errno.EACCES, "not now", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(files, "digest", fail)
        checkpointer.save(make_state(20))
        with pytest.raises(PermissionError, match="not now"):
            checkpointer.save(make_state(30))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]
    checkpointer.save(make_state(20))
    assert checkpointer.latest_step() == 20


def _python(code: str, *arguments, **options) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "PYTHONPATH": os.pathsep.join(
            [str(_REPOSITORY), str(_REPOSITORY / "tests" / "checkpointing")]
        ),
        **options.pop("environment", {}),
    }
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _finish(process: subprocess.Popen, seconds: int = 120) -> tuple[str, str]:
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output, errors


def _finish_two(code: str, folder: pathlib.Path) -> list[str]:
    """Runs the code with arguments folder, address and place as two processes; returns outputs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [_python(code, folder, address, place) for place in range(2)]
    try:
        return [_finish(process)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


_SAVE_UNTIL_FULL = """
    import sys, jax.numpy as jnp, numpy as np
    from test_checkpointer import make_state, assert_same_bits, saved_steps
    from tl_jax.checkpointing import Checkpointer
    import pathlib
    folder = pathlib.Path(sys.argv[1])
    noise = np.random.default_rng(0).normal(size=2**19).astype(np.float32)
    big = make_state(20).replace(opt_state=(jnp.asarray(noise),))
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(make_state(10))
        try:
            checkpointer.save(big)
            checkpointer.wait()
        except OSError as error:
            print(error)
        assert [path.name for path in folder.iterdir()] == ["10"], list(folder.iterdir())
        assert_same_bits(checkpointer.restore_latest(make_state()), make_state(10))
        checkpointer.save(make_state(30))
        checkpointer.wait()
        assert saved_steps(folder) == [10, 30]
"""


def _check_full_disk_message(output: str, folder: pathlib.Path) -> None:
    assert f"the checkpoint of step 20 could not be written to {folder}" in output
    assert "it needs about 2,097," in output
    assert "are free" in output
    assert "earlier checkpoints are untouched" in output


def test_a_file_size_limit_keeps_earlier_checkpoints(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
    code = limit + textwrap.dedent(_SAVE_UNTIL_FULL)
    output, _ = _finish(_python(code, tmp_path / "checkpoints"))
    _check_full_disk_message(output, tmp_path / "checkpoints")


def test_a_full_disk_keeps_earlier_checkpoints(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        output, _ = _finish(_python(_SAVE_UNTIL_FULL, disk / "checkpoints"))
        _check_full_disk_message(output, disk / "checkpoints")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_killed_save_leaves_the_earlier_checkpoint(tmp_path):
    code = """
        import sys, jax.numpy as jnp, numpy as np
        from test_checkpointer import make_state
        from tl_jax.checkpointing import Checkpointer
        checkpointer = Checkpointer(sys.argv[1])
        checkpointer.save(make_state(10, shift=3.0))
        noise = np.random.default_rng(0).normal(size=2**24).astype(np.float32)
        checkpointer.save(make_state(20).replace(opt_state=(jnp.asarray(noise),)))
        checkpointer.wait()
    """
    process = _python(code, tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "20.tmp").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "20.tmp").exists()
    with Checkpointer(tmp_path) as checkpointer:
        assert_same_bits(checkpointer.restore_latest(make_state()), make_state(10, shift=3.0))
        checkpointer.save(make_state(20))
    assert saved_steps(tmp_path) == [10, 20]


def test_a_save_is_written_while_the_run_goes_on(checkpointer, tmp_path, monkeypatch):
    """Until it is allowed to, the writer does not end; the state is overwritten meanwhile, as updates do."""
    allowed, put = threading.Event(), verification.put_in_place
    monkeypatch.setattr(
        verification, "put_in_place", lambda *paths: allowed.wait(60) and put(*paths)
    )
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = overwrite(make_state(step=9, shift=2.0))
    expected = jax.tree.map(np.array, state)
    checkpointer.save(state)
    for _ in range(3):
        state = overwrite(state)
    jax.block_until_ready(state)
    assert not (tmp_path / "checkpoints" / "10").exists()
    allowed.set()
    assert_same_bits(checkpointer.restore_latest(make_state()), expected)


def test_a_run_that_ends_with_an_error_ends_with_its_save_too(tmp_path):
    with pytest.raises(ZeroDivisionError), Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(10))
        raise ZeroDivisionError
    assert saved_steps(tmp_path) == [10]


def test_leaving_says_that_the_last_save_failed(tmp_path, monkeypatch):
    def fail(path):
        raise PermissionError(errno.EACCES, "not now", str(path))

    monkeypatch.setattr(files, "digest", fail)
    with pytest.raises(PermissionError, match="not now"), Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(10))


def test_one_device_and_eight_read_each_other(tmp_path):
    code = """
        import sys, jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from test_checkpointer import make_state, assert_same_bits
        from tl_jax.checkpointing import Checkpointer
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        everywhere = NamedSharding(mesh, PartitionSpec())
        template = jax.device_put(make_state(), everywhere)
        with Checkpointer(sys.argv[1]) as checkpointer:
            restored = checkpointer.restore_latest(template)
            assert_same_bits(restored, make_state(10, shift=3.0))
            for leaf in jax.tree.leaves(restored):
                assert leaf.sharding == everywhere and leaf.committed
            checkpointer.save(jax.device_put(make_state(20, shift=4.0), everywhere))
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), template
        )
        with Checkpointer(sys.argv[1]) as checkpointer:
            assert_same_bits(checkpointer.restore_latest(shapes), make_state(20, shift=4.0))
    """
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(10, shift=3.0))
    simulated = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "NPROC": "16"}
    _, errors = _finish(_python(code, tmp_path, environment=simulated))
    assert errors == ""
    with Checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore_latest(make_state())
    assert_same_bits(restored, make_state(20, shift=4.0))
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(restored))


def test_two_processes_save_and_restore_together(tmp_path):
    code = """
        import sys, jax, warnings
        import numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        folder, address, place = sys.argv[1], sys.argv[2], int(sys.argv[3])
        jax.distributed.initialize(address, num_processes=2, process_id=place)
        from test_checkpointer import make_state, assert_same_bits
        from tl_jax.checkpointing import Checkpointer
        assert jax.device_count() == 2 and jax.local_device_count() == 1
        mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
        everywhere = NamedSharding(mesh, PartitionSpec())

        def spread(state):
            whole = jax.tree.map(np.asarray, state)
            return jax.tree.map(
                lambda a: jax.make_array_from_callback(a.shape, everywhere, lambda i: a[i]), whole
            )

        with Checkpointer(folder) as checkpointer:
            assert_same_bits(checkpointer.restore_latest(spread(make_state())), make_state(10))
            for step in (20, 30, 40):
                checkpointer.save(spread(make_state(step, shift=step)), {"top1_accuracy": 1 / step})
            assert checkpointer.latest_step() == 40 and checkpointer.best_step() == 20
            restored = checkpointer.restore_latest(spread(make_state()))
            assert_same_bits(restored, make_state(40, shift=40))
            assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(restored))
            rows = NamedSharding(mesh, PartitionSpec("data"))
            cut = jax.make_array_from_callback((4,), rows, lambda i: np.arange(4.0, dtype="f")[i])
            scattered = spread(make_state(50)).replace(opt_state=(cut,))
            checkpointer.save(scattered)
            (found,) = checkpointer.restore_latest(scattered).opt_state
            assert found.sharding == rows
            assert found.addressable_shards[0].data.tolist() == [2.0 * place, 2.0 * place + 1]
    """
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(10))
    _finish_two(code, tmp_path)
    assert saved_steps(tmp_path) == [20, 40, 50]
    assert_same_bits(restore_params(tmp_path)["params"], make_state(shift=20).params)


def test_two_processes_end_together_when_one_cannot_write(tmp_path):
    code = """
        import resource, sys, warnings, jax, jax.numpy as jnp, numpy as np
        folder, address, place = sys.argv[1], sys.argv[2], int(sys.argv[3])
        jax.distributed.initialize(address, num_processes=2, process_id=place)
        from test_checkpointer import make_state
        from tl_jax.checkpointing import Checkpointer
        noise = np.random.default_rng(0).normal(size=2**19).astype(np.float32)
        with Checkpointer(folder) as checkpointer:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert int(checkpointer.restore_latest(make_state()).step) == 10
            print(len(caught), "damaged")
            if place == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
            try:
                checkpointer.save(make_state(20).replace(opt_state=(jnp.asarray(noise),)))
                checkpointer.wait()
            except OSError as error:
                print(error)
    """
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(10))
    (tmp_path / "99").mkdir()
    first, second = _finish_two(code, tmp_path)
    _check_full_disk_message(first, tmp_path)
    assert "1 damaged\n" in first
    assert "0 damaged\nprocess 0 failed" in second
    assert saved_steps(tmp_path) == [10, 99]


def test_saving_is_quiet_and_changes_no_logging_of_others(tmp_path):
    code = """
        import sys, logging
        from absl import logging as absl_logging
        absl_logging.set_verbosity(absl_logging.INFO)
        from test_checkpointer import make_state
        from tl_jax.checkpointing import Checkpointer
        with Checkpointer(sys.argv[1]) as checkpointer:
            checkpointer.save(make_state(1))
            checkpointer.restore_latest(make_state())
        absl_logging.info("an experiment's own line")
    """
    output, errors = _finish(_python(code, tmp_path))
    lines = [line for line in errors.splitlines() if "restored step 1" not in line]
    assert output == ""
    assert len(lines) == 1 and lines[0].endswith("an experiment's own line")
