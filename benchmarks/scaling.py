"""Weak and strong scaling on simulated devices, collective bytes a step, and a model of real machines.

    python -m benchmarks.scaling [--no-time] --out=FILE [--model=resnet20_cifar] [--devices 1 2 4 8]

Each number of devices is a separate process, whose CPU pretends to be so many. They share the same cores, so
that times show the overhead of splitting a step and nothing of what more devices would gain: on an ideal
machine of fixed cores, weak scaling takes n times the time of one device and strong scaling the same time.

Collectives are counted in the compiled program: the bytes of every all-reduce, all-gather, reduce-scatter,
all-to-all and collective-permute. The model puts those of the full step of --real_model into the cost of a
ring all-reduce,

    seconds = 2 (n - 1) / n * bytes / bandwidth + operations * 2 ceil(log2 n) * latency,

beside a compute time that is given, not measured here (--real_milliseconds). Bandwidths are the vendors';
latencies are assumed, and small operations are taken to go up and down a tree. Each BatchNorm reduces its
statistics over the global batch, forward and backward: these many small operations are what latency counts.
The counts are those of XLA's CPU compiler; others may combine more.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from typing import Any

from benchmarks import record

# bytes/s that a device sends in one direction (vendors' figures), seconds a hop (assumed), most devices.
LINKS = {
    "NVLink 4 of H100 and H200, 900 GB/s both ways": (450e9, 3e-6, 8),
    "InfiniBand NDR, a 400 Gb/s port per GPU": (50e9, 5e-6, 512),
    "TPU v5p ICI, 4,800 Gb/s a chip, taken as both ways": (300e9, 1e-6, 512),
}
REAL_DEVICES = (8, 64, 512)
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_OPERATION = re.compile(rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(")


def main() -> None:
    """Measures in one process a number of devices, models the rest, and prints one JSON object."""
    parser = _parser()
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(measure(args)))
        return
    recording = record.Recording(parser, args)
    measured = []
    for kind in ("weak", "strong"):
        for devices in args.devices:
            batch = args.batch_size * (devices if kind == "weak" else 1)
            found = _in_process(args, devices, batch, time=args.time)
            measured.append({"scaling": kind, "devices": devices, "batch_size": batch, **found})
    first = {row["scaling"]: row for row in reversed(measured)}
    for row in measured if args.time else ():
        base = first[row["scaling"]]["milliseconds"]
        row["ideal_milliseconds"] = base * (row["devices"] if row["scaling"] == "weak" else 1)
        row["overhead"] = row["milliseconds"] / row["ideal_milliseconds"] - 1
    real = _in_process(args, 8, 8 * 8, model=args.real_model, size=args.real_image_size, time=False)
    result = {
        "note": "simulated devices share this machine's cores: overhead only, no gain to be seen",
        "model": args.model,
        "image_size": args.image_size,
        "measured": measured,
        "real_model": args.real_model,
        "real_collectives_per_step": real["collectives"],
        "real_bytes_per_step": real["collective_bytes"],
        "assumed_compute_milliseconds": args.real_milliseconds,
        "modelled": model_cost(
            real["collective_bytes"], real["collectives"], args.real_milliseconds / 1e3
        ),
    }
    recording.write(result)


def collectives(program: str) -> dict[str, dict[str, int]]:
    """Returns {operation: {"count", "bytes"}} of a compiled program's text, by the size of their results."""
    found: dict[str, dict[str, int]] = {}
    for shapes, operation, _ in _OPERATION.findall(program):
        entry = found.setdefault(operation, {"count": 0, "bytes": 0})
        entry["count"] += 1
        entry["bytes"] += sum(
            _BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
            for kind, sizes in _ARRAY.findall(shapes)
            if kind in _BYTES
        )
    return found


def model_cost(
    num_bytes: int, operations: dict[str, dict[str, int]], compute_seconds: float
) -> list[dict[str, Any]]:
    """Returns, for each link and number of devices, the time of the collectives and the efficiency.

    Each of the operations pays the latency; none of it is hidden behind the backward pass in
    `efficiency`, all of what fits in `efficiency_overlapped`, the truth is between the two.
    """
    number = sum(entry["count"] for entry in operations.values())
    rows = []
    for link, (bandwidth, latency, most) in LINKS.items():
        for devices in (count for count in REAL_DEVICES if count <= most):
            transfer = 2 * (devices - 1) / devices * num_bytes / bandwidth
            waiting = number * 2 * math.ceil(math.log2(devices)) * latency
            seconds = transfer + waiting
            rows.append(
                {
                    "link": link,
                    "devices": devices,
                    "transfer_milliseconds": 1e3 * transfer,
                    "latency_milliseconds": 1e3 * waiting,
                    "efficiency": compute_seconds / (compute_seconds + seconds),
                    "efficiency_overlapped": compute_seconds / max(compute_seconds, seconds),
                }
            )
    return rows


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns time and collectives of a full training step on as many devices as this process has."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tl_jax import freezing, models, optim, profiling
    from tl_jax.augment import make_train_transform, preprocessing
    from tl_jax.parallel import sharding
    from tl_jax.training import steps
    from tl_jax.training.state import TrainState

    mesh = sharding.make_mesh()
    assert mesh.size == args.devices[0], (mesh.size, args.devices)
    size = args.image_size
    model = models.create_model(args.model, 10)
    variables = models.init_variables(model, jax.random.key(0))
    params = variables["params"]
    mask = freezing.frozen_mask(params, "none")
    tx = optim.make_optimizer(
        params,
        optim.make_schedule("constant", 1e-3, 1),
        optim.Rule(weight_decay=1e-4),
        frozen_mask=mask,
    )
    step = steps.make_train_step(
        models.make_forward(model),
        make_train_transform(preprocessing.Preprocessing(size)),
        tx,
        frozen_mask=mask,
    )
    state = TrainState(
        jnp.int32(0), jnp.int32(0), params, variables["batch_stats"], tx.init(params)
    )
    whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (args.batch_size, size, size, 3), dtype=np.uint8),
        "label": rng.integers(0, 10, args.batch_size).astype(np.int32),
        "position": np.arange(args.batch_size, dtype=np.int32),
    }
    compiled = (
        jax.jit(step, in_shardings=(whole, split), out_shardings=(whole, whole))
        .lower(state, batch)
        .compile()
    )
    found = collectives(compiled.as_text())
    result = {
        "collectives": found,
        "collective_bytes": sum(entry["bytes"] for entry in found.values()),
    }
    if args.time:
        state, batch = sharding.replicate(mesh, state), sharding.global_batch(mesh, batch)
        seconds = profiling.time_call(lambda: compiled(state, batch), args.seconds)
        result["milliseconds"] = 1e3 * seconds
        result["images_per_second"] = args.batch_size / seconds
    return result


def _in_process(args, devices, batch_size, *, model=None, size=None, time=True) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "benchmarks.scaling", "--inside", f"--devices={devices}"),
        *(f"--batch_size={batch_size}", f"--model={model or args.model}"),
        *(f"--image_size={size or args.image_size}", f"--seconds={args.seconds}"),
        *([] if time else ["--no-time"]),
    ]
    # NPROC: more simulated devices than cores run out of threads otherwise (jaxlib 0.10).
    environment = {
        **os.environ,
        "NPROC": "16",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    print(f"{devices} devices, batch {batch_size} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        command, cwd=record.REPOSITORY, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64, help="of one device in weak scaling")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing each, about")
    parser.add_argument("--real_model", default="resnet50")
    parser.add_argument("--real_image_size", type=int, default=64)
    parser.add_argument(
        "--real_milliseconds", type=float, default=100.0, help="assumed, of a step's computation"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--no-time", dest="time", action="store_false", help="count the collectives only"
    )
    record.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
