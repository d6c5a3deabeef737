"""Throughput of training steps and forward passes against PyTorch, interleaved in one run.

    python benchmarks/throughput.py --out=results/throughput_cpu.json
    python benchmarks/throughput.py --rows='resnet50/*' --precision=bfloat16 --compile_mode=max-autotune

Three sides run the same network from the same weights on the same uint8 batch, already on the device and
normalised there: this library, PyTorch eager, and PyTorch through `torch.compile` (forward, loss and, by
itself, backward in one graph). The PyTorch side is written as its documentation advises: channels-last, frozen
parts with requires_grad_(False) and their BatchNorm in eval mode, a fused SGD over the trainable parameters
only, gradients set to None, inference_mode for the forward pass. Nothing below the lowest trainable layer
requires a gradient, so autograd records nothing there and torch.no_grad would change nothing.

Logits and the loss of the first step must agree before a row is timed. Rounds then go through the sides in
turn; a round repeats the step until it has taken its share of --seconds, but at least once. A row already in
--out is skipped unless --again is given, so that a long run can be made in pieces; unless, that is, other
processes took more than a twentieth of the cores while it was timed (busy_elsewhere), for both sides share
the work over all cores, and lose unequally by it.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "porting"))
import torch_reference

from tl_jax import freezing, models, optim, porting, preprocessing, reporting, steps
from tl_jax.run_folder import environment_facts
from tl_jax.train_state import TrainState

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
# Of the largest logit, and of the loss: rounding of another order of summation.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
MOST_BUSY = 0.05
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        model: its name in the registry.
        stem: of the registry; None for the architecture's own.
        image_size: pixels a side.
        num_classes: of the head.
        batch_sizes: by platform.
        late: the stage up to which "frozen_late" freezes.
    """

    model: str
    stem: str | None
    image_size: int
    num_classes: int
    batch_sizes: dict[str, int]
    late: int


NETWORKS = {
    "resnet20": Network("resnet20_cifar", None, 32, 10, {"cpu": 128, "gpu": 2048}, 2),
    "resnet18_32px": Network("resnet18", "cifar", 32, 10, {"cpu": 32, "gpu": 1024}, 3),
    "resnet18": Network("resnet18", None, 224, 1000, {"cpu": 16, "gpu": 256}, 3),
    "resnet50": Network("resnet50", None, 224, 1000, {"cpu": 8, "gpu": 256}, 3),
}
MODES = ("full", "frozen_late", "frozen_backbone", "forward")
ROWS = tuple(f"{network}/{mode}" for network in NETWORKS for mode in MODES)


@dataclasses.dataclass
class Side:
    """One of those compared.

    Attributes:
        logits: of the batch in inference, before any update.
        step: begins one step and returns its loss, or the logits in a forward row.
        wait: returns when all steps begun are done.
    """

    logits: np.ndarray
    step: Callable[[], Any]
    wait: Callable[[], None]


def main() -> None:
    """Measures the rows asked for and writes the JSON after each."""
    args = _parse()
    rows = [row for row in ROWS if any(fnmatch.fnmatch(row, given) for given in args.rows)]
    if not rows:
        sys.exit(f"--rows={' '.join(args.rows)} matches none of: {', '.join(ROWS)}")
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = True
    jax.config.update("jax_default_matmul_precision", "default" if args.tf32 else "highest")
    result = _read(args.out)
    for row in rows:
        if not args.again and result["rows"].get(row, {}).get("busy_elsewhere", 1.0) < MOST_BUSY:
            continue
        print(f"{row} ...", file=sys.stderr, flush=True)
        result["rows"][row] = measure_row(row, args)
        result |= _facts(args)
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    reporting.print_table("Images a second, median of rounds", table(result["rows"]))


def measure_row(row: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of one row: each side's, the agreement, and the ratios."""
    name, mode = row.split("/")
    network = NETWORKS[name]
    batch_size = args.batch_size or network.batch_sizes[_platform()]
    before = os.getloadavg()
    makers = {"jax": make_jax, "torch_eager": make_torch, "torch_compile": make_torch}
    variables = _variables(network)
    batch = _batch(network, batch_size)
    sides, measured = {}, {}
    for side, make in makers.items():
        start = time.perf_counter()
        try:
            compiled = {"compile_mode": args.compile_mode} if side == "torch_compile" else {}
            made = make(network, mode, variables, batch, args.precision, **compiled)
            first = np.float64(_scalar(made.step()))
            made.wait()
        except Exception as error:
            if side != "torch_compile":
                raise
            measured[side] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
            continue
        measured[side] = {"seconds_to_first_step": time.perf_counter() - start}
        sides[side] = made
        _check_agreement(row, side, made, first, sides["jax"], measured, TOLERANCE[args.precision])
    start, others = time.perf_counter(), _cpu_seconds_of_others()
    for side, times in _interleave(sides, args.rounds, args.seconds).items():
        measured[side] |= _summary(times, batch_size)
    others = (_cpu_seconds_of_others() - others) / (time.perf_counter() - start)
    ours = measured["jax"]
    theirs = [measured[side] for side in sides if side != "jax"]
    return {
        "batch_size": batch_size,
        "image_size": network.image_size,
        "num_classes": network.num_classes,
        "sides": measured,
        "ratio_to_eager": _ratio(ours, measured["torch_eager"]),
        "ratio_to_compile": _ratio(ours, measured["torch_compile"]),
        "ratio_to_best_torch": min(_ratio(ours, side) for side in theirs),
        "rounds": args.rounds,
        "busy_elsewhere": others / os.cpu_count(),
        "load_average_before": before,
        "load_average_after": os.getloadavg(),
        "git_revision": environment_facts()["git_revision"],
    }


def make_jax(network, mode, variables, batch, precision) -> Side:
    """Returns this library's side: the training step as runs compile it, or the forward pass."""
    model = models.create_model(
        network.model, network.num_classes, stem=network.stem, dtype=precision
    )
    # Copies: a CPU device may share NumPy's memory, and donation would write to it.
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    spec = preprocessing.Preprocessing(network.image_size)
    images = jax.device_put(
        {**batch, "position": np.arange(len(batch["label"]), dtype=np.int32)}, jax.devices()[0]
    )
    forward = models.make_forward(model)
    normalise = preprocessing.make_eval_transform(spec)

    @jax.jit
    def infer(params, batch_stats, images):
        return forward(params, batch_stats, normalise(images), train=False)[0]

    logits = np.asarray(infer(params, batch_stats, images["image"]))
    if mode == "forward":
        held = [infer(params, batch_stats, images["image"])]

        def run():
            held[0] = infer(params, batch_stats, images["image"])
            return held[0]

        return Side(logits, run, lambda: jax.block_until_ready(held[0]))

    mask = freezing.frozen_mask(params, _strategy(network, mode))
    tx = optim.make_optimizer(
        params,
        optim.make_schedule("constant", LEARNING_RATE, 1),
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        decay_bias_and_norm=True,
        frozen_mask=mask,
    )
    train_forward = models.make_forward(model, frozen_norms=freezing.frozen_norms(params, mask))
    step = jax.jit(
        steps.make_train_step(
            train_forward, preprocessing.make_train_transform(spec), tx, frozen_mask=mask
        ),
        donate_argnums=0,
    )
    held = [TrainState(jnp.int32(0), jnp.int32(0), params, batch_stats, tx.init(params))]

    def update():
        held[0], measured = step(held[0], images)
        return measured["loss"]

    return Side(logits, update, lambda: jax.block_until_ready(held[0]))


def make_torch(network, mode, variables, batch, precision, compile_mode: str = "") -> Side:
    """Returns PyTorch's side; eager without `compile_mode`."""
    torch._dynamo.reset()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = torch_reference.load(
        lambda: _torch_network(network),
        porting.export_state_dict(variables, naming=_naming(network)),
    ).to(device, memory_format=torch.channels_last)
    spec = preprocessing.Preprocessing(network.image_size)
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
    # A view of NHWC memory in the order NCHW is what PyTorch calls channels-last.
    images = torch.from_numpy(batch["image"]).to(device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(batch["label"]).long().to(device)

    def autocast():
        if precision == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def infer(images):
        with autocast():
            return net((images.float() / 255 - mean) / std).float()

    def loss_of(images, labels):
        return torch.nn.functional.cross_entropy(infer(images), labels)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        logits = infer(images).cpu().numpy()
    options = {} if compile_mode in ("", "default") else {"mode": compile_mode}
    if mode == "forward":
        run = torch.compile(infer, **options) if compile_mode else infer

        def forward():
            with torch.inference_mode():
                return run(images)

        return Side(logits, forward, wait)

    net.train()
    for part in _frozen_parts(network, mode, net):
        part.eval()
        part.requires_grad_(False)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        trainable, LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )
    compute_loss = torch.compile(loss_of, **options) if compile_mode else loss_of

    def update():
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Side(logits, update, wait)


def table(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows as printed."""
    lines = []
    for name, row in rows.items():
        line: dict[str, Any] = {"row": name, "batch": row["batch_size"]}
        for side, measured in row["sides"].items():
            line[side] = measured.get("images_per_second_median", measured.get("error", ""))
        lines.append(
            {**line, "to eager": row["ratio_to_eager"], "to compile": row["ratio_to_compile"]}
        )
    return lines


def _interleave(sides: dict[str, Side], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Returns the seconds a step takes, by side and round; the sides take turns at going first."""
    repeats = {}
    share = seconds / (rounds * len(sides))
    for name, side in sides.items():
        once = min(_time(side, 1) for _ in range(2))
        repeats[name] = max(1, int(share / once))
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for number in range(rounds):
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            times[name].append(_time(sides[name], repeats[name]))
    return times


def _time(side: Side, repeats: int) -> float:
    side.wait()
    start = time.perf_counter()
    for _ in range(repeats):
        side.step()
    side.wait()
    return (time.perf_counter() - start) / repeats


def _cpu_seconds_of_others() -> float:
    """Returns the CPU seconds that other processes have used since the machine started; Linux only."""
    try:
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft_irq, steal = (int(field) for field in fields[:8])
    ticks = user + nice + system + irq + soft_irq + steal
    own = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def _summary(times: list[float], batch_size: int) -> dict[str, Any]:
    return {
        "images_per_second_median": batch_size / statistics.median(times),
        "images_per_second_best": batch_size / min(times),
        "milliseconds_median": 1e3 * statistics.median(times),
        "milliseconds_of_rounds": [round(1e3 * value, 3) for value in times],
    }


def _ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> float | None:
    """Returns our throughput over theirs, by the medians; above 1 we are faster."""
    if "error" in theirs:
        return None
    return theirs["milliseconds_median"] / ours["milliseconds_median"]


def _check_agreement(row, side, made, first, ours, measured, tolerance):
    """Exits unless logits and the first step's loss (or mean logit) are those of our side."""
    scale = np.abs(ours.logits).max()
    error = float(np.abs(made.logits - ours.logits).max() / scale)
    measured[side] |= {"logits_error": error, "first_value": float(first)}
    ours_first = measured["jax"]["first_value"]
    first_error = abs(float(first) - ours_first) / max(1.0, abs(ours_first))
    if not (error <= tolerance and first_error <= tolerance):
        sys.exit(
            f"{row}: {side} and jax disagree: logits by {error:.2g} of the largest, the first step's "
            f"value {first} against {ours_first}; expected at most {tolerance}"
        )


def _scalar(value) -> float:
    array = value.float().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return float(array.mean())


def _variables(network: Network) -> dict[str, Any]:
    """Returns random weights, and running statistics that are not those of a fresh network."""
    model = models.create_model(network.model, network.num_classes, stem=network.stem)
    variables = models.init_variables(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    # Near a fresh network's means of 0 and variances of 1: far from them, every ReLU would be dead.
    stats = jax.tree.map(
        lambda leaf: leaf + rng.uniform(-0.1, 0.1, leaf.shape).astype(np.float32),
        jax.tree.map(np.asarray, variables["batch_stats"]),
    )
    return {"params": jax.tree.map(np.asarray, variables["params"]), "batch_stats": stats}


def _batch(network: Network, batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    size = network.image_size
    return {
        "image": rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
        "label": rng.integers(0, network.num_classes, batch_size).astype(np.int32),
    }


def _strategy(network: Network, mode: str) -> str:
    return {
        "full": "none",
        "frozen_late": f"up_to:stage{network.late}",
        "frozen_backbone": "backbone",
    }[mode]


def _torch_network(network: Network):
    if network.model.endswith("_cifar"):
        return torch_reference.cifar_resnet(network.model, network.num_classes)
    return torch_reference.torchvision_resnet(
        network.model, network.num_classes, network.stem or "imagenet"
    )


def _naming(network: Network) -> str:
    return "cifar" if network.model.endswith("_cifar") else "torchvision"


def _frozen_parts(network: Network, mode: str, net) -> list[torch.nn.Module]:
    if mode == "full":
        return []
    head = net.fc if hasattr(net, "fc") else net.linear
    late = ["conv1", "bn1", *(f"layer{number}" for number in range(1, network.late + 1))]
    return [
        part
        for name, part in net.named_children()
        if part is not head and (mode == "frozen_backbone" or name in late)
    ]


def _platform() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    facts = environment_facts()
    facts["versions"]["torch"] = torch.__version__
    return {
        "command": "benchmarks/throughput.py " + " ".join(sys.argv[1:]),
        "precision": args.precision,
        "tf32": args.tf32 if _platform() == "gpu" else None,
        "compile_mode": args.compile_mode,
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch_device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **facts,
    }


def _read(path: pathlib.Path | None) -> dict[str, Any]:
    if path and path.exists():
        return json.loads(path.read_text())
    return {"rows": {}}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=["*"], help="names or patterns of rows")
    parser.add_argument("--precision", choices=tuple(TOLERANCE), default="float32")
    parser.add_argument(
        "--no-tf32", dest="tf32", action="store_false", help="full float32 on a GPU"
    )
    parser.add_argument("--compile_mode", choices=COMPILE_MODES, default="default")
    parser.add_argument("--batch_size", type=int, default=0, help="0: by network and platform")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing a row, about")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--again", action="store_true", help="measure rows that --out holds, too")
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
