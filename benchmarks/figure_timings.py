"""The tables of time and memory, each a function from the folder results/ to Markdown.

Timings are kept in one folder for each platform and version of JAX, such as results/cpu-jax0.10, and a table shows
all of them, one below the other. A file that is not there is said to be missing, with the command that makes it.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import figure_cells, ratios
from benchmarks.figure_cells import table

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
        return caption + figure_cells.markdown(["", "MFLOP", "to the forward pass"], rows, "lrr")

    return figure_cells.by_variant(results, "flops", body, timed=False)


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
        return figure_cells.markdown(head, lines.values(), "l" + "r" * len(columns))

    return figure_cells.by_variant(results, "memory", body, timed=False)


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
        return caption + figure_cells.markdown(head, lines.values(), "l" + "r" * len(sizes))

    return figure_cells.by_variant(results, "augmentation", body)


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
        return f"{figure_cells.markdown(head, rows, 'lrrr')}\n\n{note}"

    return figure_cells.by_variant(results, "linear_probe", body, torch=True)


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
            + figure_cells.markdown(head, rows, "lrrr")
            + "\n\nLargest difference of a parameter between a member and its solo run: "
            f"{figure_cells.error(updates['largest_difference'])}."
        )

    return figure_cells.by_variant(results, "sweep", body)


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
        return figure_cells.markdown(["network", "batch", *_MODES.values()], lines, "lrrrrr")

    return figure_cells.by_variant(results, "throughput", body, torch=True)


@table
def steps(results: pathlib.Path) -> str:
    """Full steps alone in a process, under versions of JAX, without and with huge pages."""
    path = results / "steps.json"
    if not path.exists():
        return figure_cells.missing("steps")
    run = figure_cells.read(path)
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
        f"{figure_cells.markdown(head, lines, 'lr' + 'r' * len(run['cases']))}\n\n"
        f"Median of {rounds} processes. {figure_cells.caption(run)}"
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
        return figure_cells.markdown(head, lines, "lrrrrrr")

    return figure_cells.by_variant(results, "convolution_gradients", body)


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
        return figure_cells.markdown(head, lines, "llrrrl")

    return figure_cells.by_variant(results, "dispatch", body)


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
        return figure_cells.markdown(head, lines, "lrrrrr")

    return figure_cells.by_variant(results, "startup", body)


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
            + figure_cells.markdown(head, lines, "lrrrr")
        )

    return figure_cells.by_variant(results, "scaling", body, timed=False)


def _rate_and_ratios(row: Mapping[str, Any]) -> str:
    rate = row["sides"]["jax"]["images_per_second_median"]
    ratios = [
        f"{row['ratios'][side]:.2f}" if side in row["ratios"] else "-"
        for side in ("torch_eager", "torch_compile")
    ]
    return f"{rate:,.0f} ({', '.join(ratios)})"


@table
def folders(results: pathlib.Path) -> str:
    """Image folders: seconds to the first update, images a second and memory."""

    def body(run: Mapping[str, Any]) -> str:
        rows = [
            [
                f"`{row['data'].rpartition(':')[2]}`",
                f"{row['images']:,}",
                *(f"{row['seconds'][start]:.1f} s" for start in ("cold", "warm", "access", "skip")),
                f"{row['decoded_per_second']:,}",
                f"{row['inspected_per_second']:,}",
                *(f"{row['peak_bytes'][start] / 2**20:,.0f} MiB" for start in ("cold", "access")),
            ]
            for row in run["rows"]
        ]
        head = [
            *(
                "data",
                "images",
                "cold",
                "warm",
                "each as it is asked for",
                "cold, `unreadable=skip`",
            ),
            *(
                "decoded a second",
                "inspected a second",
                "memory, cold",
                "memory, each as asked for",
            ),
        ]
        count = len(next(iter(run["rows"][0]["all"].values())))
        return f"{figure_cells.markdown(head, rows, 'l' + 'r' * 9)}\n\nMedians of {count} starts."

    return figure_cells.by_variant(results, "folders", body)
