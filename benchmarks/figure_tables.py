"""The tables of accuracies and errors, each a function from the folder results/ to Markdown."""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import figure_cells
from benchmarks.figure_cells import table
from tl_jax import statistics
from tl_jax.reporting import routes as routes_report

_METHODS = {
    "random_init": "random initialisation",
    "linear_probe": "linear probe",
    "full_finetune": "full fine-tuning",
    "lp_ft": "LP-FT",
}

_SPLITS = ("validation", "test")


@table
def quickstart(results: pathlib.Path) -> str:
    """What `make quickstart` prints."""
    return _comparison(figure_cells.read(results / "quickstart.json"))


@table
def cifar10_compare(results: pathlib.Path) -> str:
    """Three methods on few images of CIFAR-10."""
    return _comparison(figure_cells.read(results / "cifar10_compare.json"))


@table
def cifar10_lpft(results: pathlib.Path) -> str:
    """Linear probe, full fine-tuning and LP-FT in equally many updates."""
    return _comparison(figure_cells.read(results / "cifar10_lpft.json"))


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
        return figure_cells.missing("recipes")
    run = figure_cells.read(path)
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
        return figure_cells.missing("animals_to_plants")
    run = figure_cells.read(path)
    rows = []
    for shots in sorted(
        {row["examples_per_class"] for row in run["rows"]}, key=lambda n: n or math.inf
    ):
        of_shots = [row for row in run["rows"] if row["examples_per_class"] == shots]
        labels = f"{shots}" if shots else f"all ({of_shots[0]['train_examples']:,} in all)"
        of_methods = {row["method"] for row in of_shots}
        for method in (name for name in _PLANT_METHODS if name in of_methods):
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
    text = figure_cells.markdown(head, rows, "l" * (len(head) - 2) + "rr")
    return f"{text}\n\n{count} test images a run, all counted. {figure_cells.caption(run)}"


def _by_seed(run: Mapping[str, Any], **chosen: Any) -> dict[int, Mapping[str, Any]]:
    """Returns {seed: row} of the rows with these values."""
    rows = [row for row in run["rows"] if all(row[name] == chosen[name] for name in chosen)]
    return {row["seed"]: row for row in rows}


def _recipe_cells(
    rows: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    """Returns mean metrics with their intervals, the difference to a baseline by seed, seeds and time."""
    cells = [
        figure_cells.interval([row[metric] for row in rows.values()]) + "%"
        for metric in _RECIPE_METRICS
    ]
    accuracies, theirs = (
        {seed: row["top1_accuracy"] for seed, row in one.items()} for one in (rows, baseline)
    )
    difference = ""
    if rows is not baseline and accuracies != theirs:
        paired = statistics.paired_difference(accuracies, theirs).values
        difference = figure_cells.interval(list(paired.values()), signed=True)
    seconds = sum(row["wall_seconds"] for row in rows.values()) / len(rows)
    return [*cells, difference, f"{len(rows)}", f"{seconds:,.1f} s"]


@table
def model_card(results: pathlib.Path) -> str:
    """How the packaged weights were chosen and what they score."""
    run = figure_cells.read(results / "tinyimagenet32_pretrain.json")
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
            f"(95% interval {figure_cells.wilson(test)}; top-5 {test['top5_accuracy']:.2%}), read once, at the end",
        ],
        ["time", f"{figure_cells.duration(run['wall_seconds'])} on {figure_cells.device(run)}"],
        ["versions", figure_cells.versions(run)],
        ["revision", f"`{run['git_revision']}`"],
    ]
    return figure_cells.markdown(["", ""], rows)


@table
def pretraining(results: pathlib.Path) -> str:
    """The run that made the packaged weights."""
    run = figure_cells.read(results / "tinyimagenet32_pretrain.json")
    test = run["splits"]["test"]
    cells = [
        "Tiny ImageNet at 32 px",
        "ResNet-20 from scratch",
        f"{test['top1_accuracy']:.1%} ({figure_cells.wilson(test)})",
        f"{test['examples']:,}",
        figure_cells.duration(run["wall_seconds"]),
    ]
    head = ["data", "method", "test top-1 (95% interval)", "test images", "time"]
    return figure_cells.markdown(head, [cells])


@table
def parity(results: pathlib.Path) -> str:
    """Largest error of ported networks against each reference."""
    run = figure_cells.read(results / "parity.json")
    if "training" not in run:
        return figure_cells.missing("parity")
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
            figure_cells.error(max(errors)),
        ]
        for (family, size, reference), errors in groups.items()
    ]
    head = ["networks", "number", "images", "reference", "largest relative error"]
    return f"{figure_cells.caption(run, timed=False, torch=True)}\n\n{figure_cells.markdown(head, rows, 'lrllr')}"


@table
def training_parity(results: pathlib.Path) -> str:
    """Largest error of twenty training steps against PyTorch."""
    run = figure_cells.read(results / "parity.json")
    if "training" not in run:
        return figure_cells.missing("parity")
    rows = [
        [
            network,
            f"{row['steps']}",
            f"{row['learning_rate']}",
            figure_cells.error(row["loss_error"]),
            figure_cells.error(row["statistics_error"]) if row["statistics_error"] else "none",
            figure_cells.error(row["parameters_error"]),
        ]
        for network, row in run["training"].items()
    ]
    head = ["network", "steps", "learning rate", "losses", "BatchNorm statistics", "parameters"]
    return figure_cells.markdown(head, rows, "lrrrrr")


def _comparison(run: Mapping[str, Any]) -> str:
    """Returns the table of a comparison: means and paired differences with 95% t-intervals."""
    methods = run["methods"] if "methods" in run else _methods(run)
    baseline = methods[0]
    held_out = all(entry.get("validation") for entry in methods)
    rows = []
    for entry in methods:
        values = entry["values"]
        paired = statistics.paired_difference(values, baseline["values"]).values
        validation = []
        if held_out:
            validation = [figure_cells.interval(list(entry["validation"]["values"].values())) + "%"]
        rows.append(
            [
                _METHODS.get(entry["method"], entry["method"]),
                *validation,
                figure_cells.interval(list(values.values())) + "%",
                ""
                if entry is baseline
                else figure_cells.interval(list(paired.values()), signed=True),
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
    text = figure_cells.markdown(head, rows, "l" * (len(head) - 2) + "rr")
    return f"{text}\n\n{count} test images a run, all counted. {figure_cells.caption(run)}"


def _methods(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what a comparison of an earlier version said of each method, from the runs of an ablation."""
    found = []
    for row in run["test"]:
        runs = [one for one in run["runs"] if one["variant"] == row["variant"]]
        values = {split: {one["seed"]: one[split] for one in runs} for split in _SPLITS}
        measured = None not in values["validation"].values()
        found.append(
            {
                "method": row["variant"],
                "values": values["test"],
                "validation": {"values": values["validation"]} if measured else None,
                "wall_seconds": sum(one["seconds"] for one in runs) / len(runs),
            }
        )
    return found


def _reference(name: str, versions: Mapping[str, str | None]) -> str:
    known = {"huggingface": "transformers"}.get(name, name)
    if known == "cifar":
        return "PyTorch definitions in `tests/porting/torch_reference.py`"
    return f"{known} {versions.get(known) or ''}".strip()


_ROUTES = {
    "lda": "LDA",
    "logistic": "logistic regression",
    "linear_svm": "linear SVM",
    "rbf_svm": "RBF SVM",
    "knn": "k-NN",
}
_ROUTE_DATA = {"cifar10": "CIFAR-10", "flowers": "flowers"}


@table
def routes(results: pathlib.Path) -> str:
    """Classic classifiers on features, beside the network fine-tuned in full."""
    path = results / "routes.json"
    if not path.exists():
        return figure_cells.missing("routes")
    run = figure_cells.read(path)
    rows = []
    for name, entry in run["data"].items():
        data = f"{_ROUTE_DATA[name]}, {entry['train_examples']:,} images"
        for row in (*entry["routes"], entry["finetuned"]):
            beside = "cv_accuracy" not in row
            low, high = row["top1_interval"]
            rows.append(
                [
                    data,
                    "ResNet-20 fine-tuned in full" if beside else _ROUTES[row["method"]],
                    "" if beside else routes_report.setting(row),
                    "" if beside else f"{row['cv_accuracy']:.2%}",
                    f"{row['top1_accuracy']:.2%} ({100 * low:.1f} to {100 * high:.1f})",
                    f"{row['macro_f1']:.2%}",
                    "" if beside else f"{row['search_seconds']:.1f} s",
                    f"{row['fit_seconds']:.1f} s",
                ]
            )
    head = [
        *("data", "route", "chosen", "cross-validation", "test top-1 (95% interval)", "macro F1"),
        *("search", "fit"),
    ]
    counts = [entry["splits"]["test"]["examples"] for entry in run["data"].values()]
    count = " and ".join(f"{number:,}" for number in counts)
    text = figure_cells.markdown(head, rows, "lllrrrrr")
    return f"{text}\n\n{count} test images, all counted. {figure_cells.caption(run)}"


@table
def lowered(results: pathlib.Path) -> str:
    """Operations in a step as it is lowered for accelerators, before and after."""
    if not (results / "lowered.json").exists():
        return figure_cells.missing("lowered")
    before, run = (
        figure_cells.read(results / f"{name}.json") for name in ("lowered_before", "lowered")
    )
    names = [name for name in run["rows"][0] if name not in ("platform", "trained", "leaves")]
    rows = []
    for earlier, now in zip(before["rows"], run["rows"], strict=True):
        assert all(earlier[name] == now[name] for name in ("platform", "trained"))
        cells = [
            f"{now[name]:,}"
            if earlier[name] == now[name]
            else f"{earlier[name]:,} to {now[name]:,}"
            for name in names
        ]
        rows.append([now["platform"], now["trained"], *cells])
    caption = (
        f"{run['model']} in bfloat16, {run['batch_size']} images of {run['image_size']} px; from revision "
        f"`{before['revision'][:10]}` to this one. {figure_cells.caption(run, timed=False)}"
    )
    head = ["lowered for", "trained", *names]
    return f"{caption}\n\n{figure_cells.markdown(head, rows, 'll' + 'r' * len(names))}"
