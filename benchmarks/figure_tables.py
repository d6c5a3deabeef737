"""The tables of README.md and docs/, each a function from the folder results/ to Markdown.

Timings are kept in one folder for each platform and version of JAX, such as results/cpu-jax0.10, and a table shows
all of them, one below the other. A file that is not there is said to be missing, with the command that makes it.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import ratios
from tl_jax import statistics

Table = Callable[[pathlib.Path], str]
TABLES: dict[str, Table] = {}

_METHODS = {
    "random_init": "random initialisation",
    "linear_probe": "linear probe",
    "full_finetune": "full fine-tuning",
    "lp_ft": "LP-FT",
}
_MODES = {
    "full": "full step",
    "frozen_late": "last stage and head",
    "frozen_backbone": "head only",
    "forward": "forward pass",
}
_NETWORKS = {
    "resnet20": "ResNet-20, 32 px",
    "resnet18_32px": 'ResNet-18 `stem="cifar"`, 32 px',
    "resnet18": "ResNet-18, 224 px",
    "resnet50": "ResNet-50, 224 px",
}


def table(function: Table) -> Table:
    """Registers a table under the name of its function."""
    TABLES[function.__name__] = function
    return function


@table
def quickstart(results: pathlib.Path) -> str:
    """What `make quickstart` prints."""
    return _comparison(_read(results / "quickstart.json"))


@table
def cifar10_compare(results: pathlib.Path) -> str:
    """Three methods on few images of CIFAR-10."""
    return _comparison(_read(results / "cifar10_compare.json"))


@table
def cifar10_lpft(results: pathlib.Path) -> str:
    """Linear probe, full fine-tuning and LP-FT in equally many updates."""
    return _comparison(_read(results / "cifar10_lpft.json"))


_RECIPE_METRICS = {
    "top1_accuracy": "top-1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
}


@table
def recipes(results: pathlib.Path) -> str:
    """Published recipes beside their corrected siblings."""
    path = results / "recipes.json"
    if not path.exists():
        return _missing("recipes")
    run = _read(path)
    rows = []
    for recipe in dict.fromkeys(row["recipe"] for row in run["rows"]):
        published = _by_seed(run, recipe=recipe, variant="as published")
        for variant in ("as published", "corrected"):
            found = _by_seed(run, recipe=recipe, variant=variant)
            rows.append([f"`{recipe}`", variant, *_recipe_cells(found, published)])
    return _recipe_table(run, ("recipe", ""), "difference in top-1", rows)


@table
def animals_to_plants(results: pathlib.Path) -> str:
    """Transfer from animals to plants, by labels per class."""
    path = results / "animals_to_plants.json"
    if not path.exists():
        return _missing("animals_to_plants")
    run = _read(path)
    rows = []
    for shots in dict.fromkeys(row["examples_per_class"] for row in run["rows"]):
        of_shots = [row for row in run["rows"] if row["examples_per_class"] == shots]
        labels = f"{shots}" if shots else f"all ({of_shots[0]['train_examples']:,} in all)"
        for method in dict.fromkeys(row["method"] for row in of_shots):
            scratch = "resnet20_scratch" if method.startswith("resnet20") else "scratch"
            found = _by_seed(run, method=method, examples_per_class=shots)
            baseline = _by_seed(run, method=scratch, examples_per_class=shots)
            rows.append([labels, _PLANT_METHODS[method], *_recipe_cells(found, baseline)])
    difference = "difference in top-1 to the same network from scratch"
    return _recipe_table(run, ("labels per class", "network"), difference, rows)


_PLANT_METHODS = {
    "scratch": "small CNN from scratch",
    "transfer": "small CNN from animals, all but the head",
    "transfer_stage1": "small CNN from animals, first convolution alone",
    "transfer_convolutions": "small CNN from animals, both convolutions",
    "resnet20_scratch": "ResNet-20 from scratch, 32 px",
    "resnet20_packaged": "ResNet-20, packaged weights, 32 px",
}


def _recipe_table(
    run: Mapping[str, Any],
    first: tuple[str, str],
    difference: str,
    rows: Iterable[Sequence[str]],
) -> str:
    """Returns the table of rows that begin with two cells and go on as `_recipe_cells`."""
    head = [*first, *_RECIPE_METRICS.values(), difference, "seeds", "time of a run"]
    counts = sorted({row["test_examples"] for row in run["rows"]})
    count = " or ".join(f"{number:,}" for number in counts)
    text = _markdown(head, rows, "l" * (len(head) - 2) + "rr")
    return f"{text}\n\n{count} test images a run, all counted. {_caption(run)}"


def _by_seed(run: Mapping[str, Any], **chosen: Any) -> dict[int, Mapping[str, Any]]:
    """Returns {seed: row} of the rows with these values."""
    rows = [row for row in run["rows"] if all(row[name] == chosen[name] for name in chosen)]
    return {row["seed"]: row for row in rows}


def _recipe_cells(
    rows: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    """Returns mean metrics with their intervals, the difference to a baseline by seed, seeds and time."""
    cells = [_interval([row[metric] for row in rows.values()]) + "%" for metric in _RECIPE_METRICS]
    accuracies, theirs = (
        {seed: row["top1_accuracy"] for seed, row in one.items()} for one in (rows, baseline)
    )
    difference = ""
    if rows is not baseline and accuracies != theirs:
        paired = statistics.paired_difference(accuracies, theirs).values
        difference = _interval(list(paired.values()), signed=True)
    seconds = sum(row["wall_seconds"] for row in rows.values()) / len(rows)
    return [*cells, difference, f"{len(rows)}", f"{seconds:,.1f} s"]


@table
def model_card(results: pathlib.Path) -> str:
    """How the packaged weights were chosen and what they score."""
    run = _read(results / "tinyimagenet32_pretrain.json")
    validation, test = run["splits"]["validation"], run["splits"]["test"]
    rows = [
        [
            "selected",
            f"step {run['selected_step']} of {run['steps']}, by top-1 on the "
            f"{validation['examples']:,} images held out: {validation['top1_accuracy']:.2%}",
        ],
        [
            "top-1 on the official validation images",
            f"**{test['top1_accuracy']:.2%}** of all {test['examples']:,} "
            f"(95% interval {_wilson(test)}; top-5 {test['top5_accuracy']:.2%}), read once, at the end",
        ],
        ["time", f"{_duration(run['wall_seconds'])} on {_device(run)}"],
        ["versions", _versions(run)],
        ["revision", f"`{run['git_revision']}`"],
    ]
    return _markdown(["", ""], rows)


@table
def pretraining(results: pathlib.Path) -> str:
    """The run that made the packaged weights."""
    run = _read(results / "tinyimagenet32_pretrain.json")
    test = run["splits"]["test"]
    cells = [
        "Tiny ImageNet at 32 px",
        "ResNet-20 from scratch",
        f"{test['top1_accuracy']:.1%} ({_wilson(test)})",
        f"{test['examples']:,}",
        _duration(run["wall_seconds"]),
    ]
    head = ["data", "method", "test top-1 (95% interval)", "test images", "time"]
    return _markdown(head, [cells])


@table
def flops(results: pathlib.Path) -> str:
    """Compiled FLOP of a step, by what is frozen."""

    def body(run: Mapping[str, Any]) -> str:
        names = [name.removesuffix("_mflop") for name in run if name.endswith("_mflop")]
        words = {"forward": "forward pass", "backbone": "step, backbone frozen"}
        words["none"] = "step, nothing frozen"
        rows = [
            [
                words.get(name, f"step, frozen up to {name.rpartition(':')[2]}"),
                f"{run[f'{name}_mflop']:,.1f}",
                f"{run.get(f'{name}_ratio', 1.0):.4f}",
            ]
            for name in names
        ]
        caption = f"{run['model']}, {run['image_size']} px, batch {run['batch_size']}.\n\n"
        return caption + _markdown(["", "MFLOP", "to the forward pass"], rows, "lrr")

    return _by_variant(results, "flops", body, timed=False)


@table
def memory(results: pathlib.Path) -> str:
    """Temporary memory and FLOP of a full step under each `model.remat`."""

    def body(run: Mapping[str, Any]) -> str:
        columns = list(dict.fromkeys(row["remat"] for row in run["rows"]))
        lines: dict[str, list[str]] = {}
        for row in run["rows"]:
            name = f"{row['network']}, batch {row['batch_size']}"
            figures = f"{row['temporary_bytes'] / 2**20:,.0f} MiB, {row['flops'] / 1e9:,.1f}"
            lines.setdefault(name, [name]).append(figures)
        head = ["network", *(f'`"{column}"`' for column in columns)]
        return _markdown(head, lines.values(), "l" + "r" * len(columns))

    return _by_variant(results, "memory", body, timed=False)


@table
def augmentation(results: pathlib.Path) -> str:
    """Images a second of every operation and mixing."""

    def body(run: Mapping[str, Any]) -> str:
        sizes = list(dict.fromkeys(row["size"] for row in run["rows"]))
        lines: dict[str, list[str]] = {}
        for row in run["rows"]:
            figures = f"{row['milliseconds_median']:,.1f} ms, {row['images_per_second']:,.0f}"
            lines.setdefault(row["case"], [f"`{row['case']}`"]).append(figures)
        caption = f"Batch {run['batch_size']}; the median of {run['rounds']} rounds.\n\n"
        head = ["", *(f"{size} px: a batch, images/s" for size in sizes)]
        return caption + _markdown(head, lines.values(), "l" + "r" * len(sizes))

    return _by_variant(results, "augmentation", body)


@table
def parity(results: pathlib.Path) -> str:
    """Largest error of ported networks against each reference."""
    run = _read(results / "parity.json")
    if "training" not in run:
        return _missing("parity")
    groups: dict[tuple[str, str, str], list[float]] = {}
    for name, errors in run["errors"].items():
        case, reference = name.rsplit("/", 1)
        network, size = case.rsplit("-", 1)
        family = "CIFAR ResNets" if "_cifar" in network else "ImageNet ResNets"
        if network.startswith("vgg"):
            pooled = network.endswith("-pooled")
            family = 'VGGs with `classifier="pooled"`' if pooled else "VGGs"
        if network.startswith("keras_"):
            family = "ResNets v1 of Keras"
        if network.endswith("-cifar"):
            family = 'ResNet-18 with `stem="cifar"`'
        groups.setdefault((family, size, reference), []).append(max(errors.values()))
    rows = [
        [
            family,
            f"{len(errors)}",
            f"{size} px",
            _reference(reference, run["references"]),
            _error(max(errors)),
        ]
        for (family, size, reference), errors in groups.items()
    ]
    head = ["networks", "number", "images", "reference", "largest relative error"]
    return f"{_caption(run, timed=False, torch=True)}\n\n{_markdown(head, rows, 'lrllr')}"


@table
def training_parity(results: pathlib.Path) -> str:
    """Largest error of twenty training steps against PyTorch."""
    run = _read(results / "parity.json")
    if "training" not in run:
        return _missing("parity")
    rows = [
        [
            network,
            f"{row['steps']}",
            f"{row['learning_rate']}",
            _error(row["loss_error"]),
            _error(row["statistics_error"]) if row["statistics_error"] else "none",
            _error(row["parameters_error"]),
        ]
        for network, row in run["training"].items()
    ]
    head = ["network", "steps", "learning rate", "losses", "BatchNorm statistics", "parameters"]
    return _markdown(head, rows, "lrrrrr")


@table
def linear_probe(results: pathlib.Path) -> str:
    """The linear probe end to end, in six ways."""

    def body(run: Mapping[str, Any]) -> str:
        uncached, epochs, far_epochs = (
            run["uncached"],
            run["uncached"]["epochs"],
            run["cached_long"]["epochs"],
        )
        base = uncached["seconds"]
        long = base + uncached["seconds_per_epoch"] * (far_epochs - epochs)

        def line(name: str, short: Any, far: Any, top1: float, mark: str = "") -> list[str]:
            def cell(seconds: Any, reference: float) -> str:
                return f"{seconds:,.1f} s ({reference / seconds:.1f}x)" if seconds else ""

            return [name, cell(short, base), cell(far, long) + mark, f"{top1:.2%}"]

        rows = [
            line("images at every epoch", base, long, uncached["test_top1"], " *"),
            line(
                "features computed once",
                run["cached"]["seconds"],
                run["cached_long"]["seconds"],
                run["cached"]["test_top1"],
            ),
            line(
                "features of an earlier run",
                run["cached_again"]["seconds"],
                None,
                run["cached_again"]["test_top1"],
            ),
        ]
        found = run.get("torch", {})
        if "tutorial" in found:
            tutorial, once = found["tutorial"], found["features_once"]
            rows += [
                line(
                    f"PyTorch as its tutorial writes it, {tutorial['epochs']} epochs run",
                    tutorial["seconds_extrapolated"],
                    tutorial["long_seconds_extrapolated"],
                    tutorial["test_top1"],
                    " *",
                ),
                line(
                    "PyTorch, features computed once",
                    once["seconds"],
                    found["features_once_long"]["seconds"],
                    once["test_top1"],
                ),
            ]
        head = ["", f"{epochs} epochs", f"{far_epochs} epochs", f"test top-1, {epochs} epochs"]
        note = "\\* by the time of an epoch. In brackets: how many times as fast as images at every epoch."
        if "images_through_the_network" in run:
            seen = run["images_through_the_network"]
            note += (
                f" The uncached run passes {seen['uncached']:,} images through the network, the cached "
                f"one {seen['cached']:,}: {run['ratios']['bound']:.1f}x is the bound for {epochs} epochs."
            )
        return f"{_markdown(head, rows, 'lrrr')}\n\n{note}"

    return _by_variant(results, "linear_probe", body, torch=True)


@table
def sweep(results: pathlib.Path) -> str:
    """64 probes as one program, and one after the other."""

    def body(run: Mapping[str, Any]) -> str:
        runs, updates = run["runs"], run["updates"]
        rows = [
            [
                f"whole runs in one process, programs compiled ({runs['runs_timed']} timed)",
                f"{runs['sweep_seconds']:.1f} s",
                f"{runs['sequential_seconds']:.0f} s",
                f"{runs['ratio']:.1f}x",
            ],
            [
                "nothing but the updates, scanned, warm",
                f"{updates['together_seconds']:.1f} s",
                f"{updates['sequential_seconds']:.1f} s",
                f"{updates['ratio']:.1f}x",
            ],
        ]
        head = ["", "one sweep", f"{run['members']} one after the other", "ratio"]
        return (
            f"{run['members']} members of {run['updates_per_member']:,} updates each "
            f"({run['train_examples']:,} training images, {run['epochs']:g} epochs).\n\n"
            + _markdown(head, rows, "lrrr")
            + "\n\nLargest difference of a parameter between a member and its solo run: "
            f"{_error(updates['largest_difference'])}."
        )

    return _by_variant(results, "sweep", body)


@table
def throughput(results: pathlib.Path) -> str:
    """Images a second against PyTorch, a row for each network."""

    def body(run: Mapping[str, Any]) -> str:
        rows = run["rows"]
        networks = list(dict.fromkeys(name.split("/")[0] for name in rows))
        lines = []
        for network in networks:
            of = {mode: rows.get(f"{network}/{mode}") for mode in _MODES}
            batch = next(row["batch_size"] for row in of.values() if row)
            cells = [_rate_and_ratios(row) if row else "" for row in of.values()]
            lines.append([_NETWORKS.get(network, network), f"{batch}", *cells])
        return _markdown(["network", "batch", *_MODES.values()], lines, "lrrrrr")

    return _by_variant(results, "throughput", body, torch=True)


@table
def steps(results: pathlib.Path) -> str:
    """Full steps alone in a process, under versions of JAX, without and with huge pages."""
    path = results / "steps.json"
    if not path.exists():
        return _missing("steps")
    run = _read(path)
    lines = []
    for name, row in run["rows"].items():
        network = name.split("/")[0]
        cells = [
            f"{case['images_per_second_median']:,.1f} ({_interval_of_speed(case['speed_interval'])})"
            if place
            else f"{case['images_per_second_median']:,.1f}"
            for place, case in enumerate(row["cases"].values())
        ]
        lines.append([_NETWORKS.get(network, network), f"{row['batch_size']}", *cells])
    head = ["full step", "batch"]
    for case in run["cases"].values():
        huge = ", huge pages" if case["huge_pages"] else ""
        head.append(f"Python {case['python']}, JAX {case['jax']}{huge}")
    rounds = next(iter(run["rows"].values()))["rounds"]
    return (
        f"{_markdown(head, lines, 'lr' + 'r' * len(run['cases']))}\n\n"
        f"Median of {rounds} processes. {_caption(run)}"
    )


def _interval_of_speed(interval: Sequence[float] | None) -> str:
    """Returns the interval of a relative speed, "1.05x to 1.12x"."""
    return "one round" if interval is None else "{:.2f}x to {:.2f}x".format(*interval)


@table
def convolution_gradients(results: pathlib.Path) -> str:
    """Our gradients of convolutions against those that JAX derives."""

    def body(run: Mapping[str, Any]) -> str:
        lines = []
        for name, row in run["rows"].items():
            network, mode = name.split("/")
            sides = row["sides"]
            ours, native = sides["jax"], sides["jax_native"]
            own, others = (side["milliseconds_of_rounds"] for side in (ours, native))
            speed, interval = ratios.speed(own, others)
            lines.append(
                [
                    f"{_NETWORKS.get(network, network)}, {_MODES[mode]}",
                    f"{row['batch_size']}",
                    f"{native['milliseconds_median']:,.0f}",
                    f"{ours['milliseconds_median']:,.0f}",
                    f"{native['cpu_milliseconds_median']:,.0f}",
                    f"{ours['cpu_milliseconds_median']:,.0f}",
                    f"{speed:.2f}x ({_interval_of_speed(interval)})",
                ]
            )
        head = ["", "batch", "JAX's ms", "ours ms", "JAX's CPU ms", "ours CPU ms", "speed"]
        return _markdown(head, lines, "lrrrrrr")

    return _by_variant(results, "convolution_gradients", body)


@table
def dispatch(results: pathlib.Path) -> str:
    """How data reach the step."""

    def body(run: Mapping[str, Any]) -> str:
        lines = [
            [
                row["case"],
                row["feed"],
                f"{row['updates_per_dispatch']}",
                f"{row['images_per_second']:,.0f}",
                f"{row['waiting_share']:.2%}",
                "yes" if row["same_bits_as_from_the_host"] else "**no**",
            ]
            for row in run["rows"]
        ]
        head = [
            "trained",
            "data",
            "updates a dispatch",
            "images/s",
            "waiting",
            "same bits as from the host",
        ]
        return _markdown(head, lines, "llrrrl")

    return _by_variant(results, "dispatch", body)


@table
def startup(results: pathlib.Path) -> str:
    """Seconds from the command to the first update."""

    def body(run: Mapping[str, Any]) -> str:
        lines = []
        for case in run["cases"]:
            median = case["median"]
            lines.append(
                [
                    f"`{case['case']}`",
                    *(f"{median[state]:.1f} s" for state in ("cold", "uncompiled", "warm")),
                    f"{case['warm_share_of_cold']:.2f}",
                    f"{case['warm_share_of_uncompiled']:.2f}",
                ]
            )
        head = ["", "cold", "uncompiled", "warm", "warm / cold", "warm / uncompiled"]
        return _markdown(head, lines, "lrrrrr")

    return _by_variant(results, "startup", body)


@table
def scaling(results: pathlib.Path) -> str:
    """Collectives of a step, and a model of what they cost."""

    def body(run: Mapping[str, Any]) -> str:
        count = sum(entry["count"] for entry in run["real_collectives_per_step"].values())
        lines = [
            [
                row["link"],
                f"{row['devices']}",
                f"{row['transfer_milliseconds']:.1f}",
                f"{row['latency_milliseconds']:.1f}",
                f"{row['efficiency']:.0%} to {row['efficiency_overlapped']:.0%}",
            ]
            for row in run["modelled"]
        ]
        head = ["link", "devices", "transfer ms", "latency ms", "efficiency, modelled"]
        return (
            f"A full step of {run['real_model']} reduces {run['real_bytes_per_step'] / 1e6:.1f} MB in "
            f"{count} operations. Modelled beside an assumed {run['assumed_compute_milliseconds']:g} ms "
            "of computation a step; bandwidths are the vendors', latencies assumed:\n\n"
            + _markdown(head, lines, "lrrrr")
        )

    return _by_variant(results, "scaling", body, timed=False)


def _comparison(run: Mapping[str, Any]) -> str:
    """Returns the table of a comparison: means and paired differences with 95% t-intervals."""
    baseline = run["methods"][0]
    held_out = all(entry.get("validation") for entry in run["methods"])
    rows = []
    for entry in run["methods"]:
        values = entry["values"]
        paired = statistics.paired_difference(values, baseline["values"]).values
        validation = []
        if held_out:
            validation = [_interval(list(entry["validation"]["values"].values())) + "%"]
        rows.append(
            [
                _METHODS.get(entry["method"], entry["method"]),
                *validation,
                _interval(list(values.values())) + "%",
                "" if entry is baseline else _interval(list(paired.values()), signed=True),
                f"{len(values)}",
                f"{entry['wall_seconds']:,.1f} s",
            ]
        )
    head = [
        "method",
        *(["validation top-1"] if held_out else []),
        "test top-1, mean ± 95% interval",
        f"difference to {_METHODS.get(baseline['method'], baseline['method'])}, same seed",
        "seeds",
        "time of a run",
    ]
    counts = {row.get("test_examples", row.get("examples")) for row in run["runs"]}
    count = " or ".join(f"{number:,}" for number in sorted(counts))
    text = _markdown(head, rows, "l" * (len(head) - 2) + "rr")
    return f"{text}\n\n{count} test images a run, all counted. {_caption(run)}"


def _interval(values: Sequence[float], *, signed: bool = False) -> str:
    """Returns "mean ± half width" in percent, of the 95% t-interval; no width for a single value.

    Example:
        >>> _interval([0.5, 0.6, 0.7])
        '60.0 ± 24.8'
    """
    mean = statistics.mean_over_seeds(values)
    assert mean.mean is not None
    text = f"{100 * mean.mean:{'+' if signed else ''}.1f}"
    if mean.interval is None:
        return text
    return f"{text} ± {50 * (mean.interval[1] - mean.interval[0]):.1f}"


def _wilson(split: Mapping[str, Any]) -> str:
    """Returns Wilson's 95% interval of an accuracy in percent, "low to high"."""
    correct = round(split["top1_accuracy"] * split["examples"])
    low, high = statistics.wilson_interval(correct, split["examples"])
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _rate_and_ratios(row: Mapping[str, Any]) -> str:
    rate = row["sides"]["jax"]["images_per_second_median"]
    ratios = [
        f"{row['ratios'][side]:.2f}" if side in row["ratios"] else "-"
        for side in ("torch_eager", "torch_compile")
    ]
    return f"{rate:,.0f} ({', '.join(ratios)})"


def _by_variant(
    results: pathlib.Path,
    name: str,
    body: Callable[[Mapping[str, Any]], str],
    *,
    timed: bool = True,
    torch: bool = False,
) -> str:
    """Returns the table of each `PLATFORM-jaxVERSION/NAME.json`, below what it was measured with."""
    folders = sorted(results.glob("*-jax*"), key=_variant_order)
    runs = [
        _read(folder / f"{name}.json") for folder in folders if (folder / f"{name}.json").exists()
    ]
    if not runs:
        return _missing(name)
    return "\n\n".join(f"{_caption(run, timed=timed, torch=torch)}\n\n{body(run)}" for run in runs)


def _variant_order(folder: pathlib.Path) -> tuple[Any, ...]:
    platform, _, version = folder.name.partition("-jax")
    return platform, [int(part) for part in version.split(".") if part.isdigit()]


def _missing(name: str) -> str:
    return f"Not measured yet: `python -m benchmarks.all --only={name}`."


def _caption(run: Mapping[str, Any], *, timed: bool = True, torch: bool = False) -> str:
    """Returns a line: versions, device, date, revision and command of a measurement.

    Args:
        run: the JSON.
        timed: whether it matters what else the machine did.
        torch: whether PyTorch took part.
    """
    revision = run.get("revision") or run.get("git_revision") or "unknown"
    commit = revision.removesuffix("+dirty")[:10]
    dirty = " with changed files" if revision.endswith("+dirty") else ""
    parts = [
        _versions(run, torch=torch),
        _device(run),
        run.get("date"),
        f"revision `{commit}`{dirty}",
    ]
    if timed and run.get("busy_elsewhere", 0.0) >= 0.05:
        parts.append(
            f"other programs took {run['busy_elsewhere']:.0%} of the cores at the same time"
        )
    parts.append(f"`{run['command']}`")
    return "; ".join(part for part in parts if part) + "."


def _versions(run: Mapping[str, Any], *, torch: bool = False) -> str:
    names = {"python": "Python", "jax": "JAX", "flax": "Flax"}
    if torch:
        names["torch"] = "PyTorch"
    versions = run["versions"]
    return ", ".join(
        f"{word} {versions[name]}" for name, word in names.items() if versions.get(name)
    )


def _device(run: Mapping[str, Any]) -> str:
    device = run["device"]
    if device["platform"] != "cpu":
        return f"{device['count']} x {device['kind']}"
    machine = f" ({run['machine']})" if run.get("machine") else ""
    return f"{run['cores']} CPU cores{machine}" if run.get("cores") else "CPU"


def _error(value: float) -> str:
    """Returns two digits and the power of ten.

    Example:
        >>> _error(1.44e-06)
        '1.4e-6'
    """
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds:.0f} s"


def _reference(name: str, versions: Mapping[str, str | None]) -> str:
    known = {"huggingface": "transformers"}.get(name, name)
    if known == "cifar":
        return "PyTorch definitions in `tests/porting/torch_reference.py`"
    return f"{known} {versions.get(known) or ''}".strip()


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Returns a Markdown table; `align` has an l or r for each column."""
    align = align or "l" * len(head)
    line = "|".join("---:" if side == "r" else "---" for side in align)
    lines = [f"| {' | '.join(head)} |", f"|{line}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
