"""Six runs, end to end, whose bits a change of the code's structure must leave as they are.

    python -m benchmarks.reference_runs --out=before.json                            in a checkout of one revision
    python -m benchmarks.reference_runs --out=after.json --compare=before.json       in one of another

Every run is a command as a user types it, on the embedded digits and weights; what is recorded are checksums of
the weights, predictions and metrics that it leaves. Compare revisions on the same machine, with the same versions of
Python and JAX and the same number of devices: others round otherwise. The last run needs PyTorch, which makes its
checkpoint; without it, it is left out.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors import numpy as safetensors_numpy

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_QUICK = ("--config=configs/quickstart.py", "--config.report.tensorboard=False")
_STEPS = "--config.train.steps=40"
_SECONDS = 900


def main() -> None:
    """Makes the runs, writes their checksums, and compares them where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file; else it is printed")
    parser.add_argument("--compare", type=pathlib.Path, help="an earlier one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = make_runs(pathlib.Path(scratch))
    text = json.dumps(found, indent=2) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if args.compare:
        differences = compare(json.loads(args.compare.read_text(encoding="utf-8")), found)
        print("\n".join(differences) or "the same bits in every run", file=sys.stderr)
        sys.exit(bool(differences))


def make_runs(scratch: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns {run: {what it left: checksum}}.

    Args:
        scratch: an empty folder.
    """
    command("finetune", scratch / "full", *_QUICK, _STEPS)
    cache = f"--config.cache.dir={scratch / 'activations'}"
    frozen = ("--config.freeze.strategy=backbone", "--config.cache.boundary=auto", cache)
    command("finetune", scratch / "cached", *_QUICK, _STEPS, "--config.cache.views=4", *frozen)
    command(
        "sweep",
        scratch / "sweep",
        "--config=configs/digits_sweep.py",
        "--config.sweep.weight_decay=(0.0, 0.001)",
        "--config.sweep.learning_rate=(0.1, 0.3)",
        "--config.sweep.seed=(0, 1)",
        "--config.train.epochs=10.0",
        cache,
    )
    command("probe", scratch / "lbfgs", "--config=configs/digits_sweep.py", cache)
    killed_and_resumed(scratch / "resumed")
    runs = ["full", "cached", "sweep", "lbfgs", "resumed"]
    checkpoint = foreign_checkpoint(scratch / "foreign.pth")
    if checkpoint:
        command(
            "evaluate",
            scratch / "evaluated",
            *_QUICK,
            f"--config.init.weights={checkpoint}",
            "--config.model.name=resnet18",
            "--config.init.head=keep",
            "--config.data.image_size=64",
        )
        runs.append("evaluated")
    return {name: checksums(scratch / name) for name in runs}


def command(name: str, workdir: pathlib.Path, *arguments: str) -> None:
    """Runs `python -m experiments.NAME` to its end."""
    subprocess.run(_command(name, workdir, arguments), check=True, timeout=_SECONDS, **_io())


def killed_and_resumed(workdir: pathlib.Path) -> None:
    """Kills the full fine-tuning after its first checkpoint, and runs it again."""
    arguments = (*_QUICK, _STEPS, "--config.train.checkpoint_every_steps=5")
    arguments += ("--config.train.updates_per_dispatch=1",)
    with subprocess.Popen(_command("finetune", workdir, arguments), **_io()) as process:
        limit = time.monotonic() + _SECONDS
        while not list(workdir.glob("checkpoints/[1-9]*")):
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < limit, "no checkpoint in time"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (workdir / "result.json").exists(), "the run was finished before it was killed"
    command("finetune", workdir, *arguments)


def foreign_checkpoint(path: pathlib.Path) -> pathlib.Path | None:
    """Returns a ResNet-18 in PyTorch's names, statistics of BatchNorm included; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    import jax

    from tl_jax import models, porting

    model = models.create_model("resnet18", 10)
    variables = jax.device_get(models.init_variables(model, jax.random.key(0)))
    state = porting.export_state_dict(variables, naming="torchvision")
    generator = np.random.default_rng(0)
    for name, value in state.items():
        if name.endswith("running_mean"):
            state[name] = generator.normal(0, 0.1, value.shape).astype(np.float32)
        if name.endswith("running_var"):
            state[name] = generator.uniform(0.5, 2, value.shape).astype(np.float32)
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, path)
    return path


def checksums(workdir: pathlib.Path) -> dict[str, str]:
    """Returns the checksums of weights, predictions and metrics in a run folder, as far as it has them."""
    found = {}
    weights = workdir / "weights.safetensors"
    if weights.exists():
        found["weights"] = _of_arrays(safetensors_numpy.load_file(weights))
    with np.load(workdir / "predictions.npz") as predictions:
        names = ("probabilities", "labels", "mistake_indices", "mistake_images")
        found["predictions"] = _of_arrays({name: predictions[name] for name in names})
    metrics = workdir / "metrics.jsonl"
    if metrics.exists():
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        timeless = [
            {name: value for name, value in row.items() if "second" not in name} for row in rows
        ]
        found["metrics"] = hashlib.sha256(json.dumps(timeless).encode()).hexdigest()
    result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    found["splits"] = hashlib.sha256(
        json.dumps(result["splits"], sort_keys=True).encode()
    ).hexdigest()
    return found


def compare(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Returns a line for each checksum that is not the same in both."""
    return [
        f"{run}: {what} differ"
        for run in sorted({*before, *after})
        for what in sorted({*before.get(run, {}), *after.get(run, {})})
        if before.get(run, {}).get(what) != after.get(run, {}).get(what)
    ]


def _command(name: str, workdir: pathlib.Path, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", f"experiments.{name}", f"--workdir={workdir}", *arguments]


def _io() -> dict:
    return {"cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "env": {**os.environ, "NPROC": "16"}}


def _of_arrays(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
