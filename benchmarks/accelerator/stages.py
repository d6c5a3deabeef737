"""The rows of each stage, as data; imports no framework."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.accelerator import curves
from benchmarks.accelerator.children import NAMES as CHILDREN
from benchmarks.accelerator.rows import Ask, Asked, Row, Side, Timed
from benchmarks.networks import MODES, NETWORKS, Network

NAMES = ("checks", "resnet50", "networks", "linear_probe", "time_to_accuracy")
SIZES = ("full", "tiny")

_VGG16 = Network("vgg16", None, 224, 1000, {"gpu": 128}, 4, dropout=0.0)
# Stands for every network where the size is tiny.
_TINY = Network("resnet20_cifar", None, 8, 10, {"gpu": 4}, 2)
_BATCH_SIZES = (256, 128, 64)
_PACKAGED = "resnet20_cifar.tin32"
_EPOCHS = {"full": 20, "tiny": 2}
_PROBE_EPOCHS = {"full": 100, "tiny": 5}
_SWEPT = {"full": {"members": 8, "steps": 500}, "tiny": {"members": 2, "steps": 2}}
_STEMS = {
    "full": {
        "imagenet": {"image_size": 224, "kernel_size": 7, "features": 64},
        "cifar": {"image_size": 32, "kernel_size": 3, "features": 16},
    },
    "tiny": {"imagenet": {"image_size": 8, "kernel_size": 7, "features": 4}},
}
_SYNTHETIC = {"full": "synthetic:50000,32", "tiny": "synthetic:256,32"}
# Of the largest output. float32 is TF32 on GPUs of today unless "highest" is asked for.
_TOLERANCE = {"highest": 1e-4, "float32": 1e-2, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all stages have in common.

    Attributes:
        size: of `SIZES`.
        only: "jax" for JAX alone, "" for PyTorch too.
        data: name of a data set for the last two stages; "" for their own.
        data_dir: see `data.data_dir`.
        weights: that fine-tuning starts from, see `init.weights`; "" for the packaged ones.
        epochs: of the last stage; 0 for its own.
        target: accuracy that time is measured to; 0: what all reach.
        why_no_torch: why PyTorch takes no part, "" where it does.
    """

    size: str = "full"
    only: str = ""
    data: str = ""
    data_dir: str = ""
    weights: str = ""
    epochs: int = 0
    target: float = 0.0
    why_no_torch: str = ""

    def without_torch(self, reason: str) -> "Settings":
        """Returns the settings for JAX alone where there is a reason."""
        return dataclasses.replace(self, only="jax", why_no_torch=reason) if reason else self

    @property
    def tiny(self) -> bool:
        """Whether this is a test."""
        return self.size == "tiny"

    @property
    def children(self) -> tuple[str, ...]:
        """The processes that take part; `torch.compile` takes minutes on a CPU."""
        count = 1 if self.only == "jax" else 2 if self.tiny else len(CHILDREN)
        return CHILDREN[:count]

    def sides(self, **of_jax: Any) -> dict[str, Side]:
        """Returns the sides of a row, each its own process; `of_jax` are settings of the first."""
        return {name: Side(name, of_jax if name == "jax" else {}) for name in self.children}

    def data_of(self, default: str) -> dict[str, str]:
        """Returns the arguments that name a data set."""
        return {"data": self.data or default, "data_dir": self.data_dir}


def rows(name: str, settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    """Returns the rows of a stage, the most telling ones first.

    Args:
        name: of `NAMES`.
        settings: of the command.
        described: what the JAX process says of itself; empty where it was not asked.
    """
    made: dict[str, Callable[..., list[Row]]] = {
        "checks": _checks,
        "resnet50": _resnet50,
        "networks": _networks,
        "linear_probe": _linear_probe,
        "time_to_accuracy": _time_to_accuracy,
    }
    return made[name](settings, described)


def summary(
    name: str, settings: Settings, measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns what is concluded from the rows of a stage as they are now: which sides disagree, and more."""
    found: dict[str, Any] = {
        "disagreements": [
            f"{row}: {side}"
            for row, of in measured.items()
            for side, compared in of.get("agreement", {}).items()
            if not compared["agrees"]
        ]
    }
    if name != "time_to_accuracy":
        return found
    answers = {row: of.get("answers", {}).get("run", {}) for row, of in measured.items()}
    reached = {row: answer["curve"] for row, answer in answers.items() if answer.get("curve")}
    return found | curves.compared(reached, settings.target)


def _checks(settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    tiny = settings.tiny
    references = {"resnet20_cifar": {"name": "resnet20_cifar", "file": "resnet20_cifar"}}
    if not tiny:
        references |= {
            "resnet18": {"name": "resnet18", "file": "resnet18"},
            "vgg11_bn": {"name": "vgg11_bn", "file": "vgg11_bn"},
            "keras_resnet50": {"name": "keras_resnet50", "file": "keras_resnet50_of_keras"},
        }
    rates = Ask("jax", "rates", {"seconds": 0.2 if tiny else 2.0})
    made: list[Row] = [
        Asked("rates", _about(settings, 15), {"rates": rates}),
        Asked("compiler_options", _about(settings, 20), {"options": Ask("jax", "options")}),
    ]
    for name, arguments in references.items():
        asks = {
            precision: Ask("jax", "reference", {**arguments, "precision": precision})
            for precision in ("highest", "float32")
        }
        made.append(Asked(f"reference/{name}", _about(settings, 40), asks))
    if not tiny:
        training = {
            precision: Ask(
                "jax", "reference_training", {"name": "vgg16_bn", "precision": precision}
            )
            for precision in ("highest", "float32")
        }
        made.append(Asked("reference_training/vgg16_bn", _about(settings, 60), training))
    for name in ("resnet20",) if tiny else ("resnet20", "resnet50"):
        steps = {"network": _arguments(settings, name), "batch_size": 4 if tiny else 64}
        steps["updates"] = 2 if tiny else 8
        ask = Ask("jax", "scan_equals_step", steps)
        made.append(Asked(f"scan_equals_step/{name}", _about(settings, 60), {"run": ask}))
    resumed = (
        {
            "data": "synthetic:64,8",
            "batch_size": 16,
            "every": 2,
            "model": "small_cnn",
            "weights": "",
        }
        if tiny
        else {
            "data": "synthetic:2048,32",
            "batch_size": 128,
            "every": 8,
            "model": "resnet20_cifar",
            "weights": _PACKAGED,
        }
    )
    asks = {
        name: Ask("jax", "resumed_bits", {**resumed, "deterministic": is_set})
        for name, is_set in (("run", False), ("deterministic", True))
        if not (tiny and is_set)
    }
    made.append(Asked("resumed_bits", _about(settings, 100), asks))
    if "torch_eager" in settings.children:
        live = {name: Side(name) for name in ("jax", "torch_eager")}
        for name, mode in (("resnet20", "full"), ("resnet50", "forward"), ("resnet50", "full")):
            if tiny and name == "resnet50":
                continue
            given = {**_timed(settings, name, mode, "highest"), "batch_size": 4 if tiny else 16}
            tolerance = _TOLERANCE["highest"]
            row = Timed(f"live/{name}/{mode}", _about(settings, 60), live, given, 0, 0.0, tolerance)
            made.append(row)
    return made


def _resnet50(settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    if settings.tiny:
        cases = [("full", "float32", 4), ("forward", "bfloat16", 4)]
    else:
        largest, middle, smallest = _BATCH_SIZES
        # What may not fit comes last.
        order = [("bfloat16", largest), ("float32", middle), ("bfloat16", middle)]
        order += [("bfloat16", smallest), ("float32", smallest), ("float32", largest)]
        cases = [(mode, precision, size) for precision, size in order for mode in MODES]
    return [
        _row(
            settings,
            f"{mode}/{precision}/{size}",
            _timed(settings, "resnet50", mode, precision, size),
        )
        for mode, precision, size in cases
    ]


def _networks(settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    tiny = settings.tiny
    made: list[Row] = []
    for name in ("resnet20",) if tiny else ("resnet18", "resnet20", "resnet18_32px", "vgg16"):
        for mode in ("frozen_late",) if tiny else ("full", "forward"):
            made.append(
                _row(settings, f"{name}/{mode}/bfloat16", _timed(settings, name, mode, "bfloat16"))
            )
    several = {"jax": Side("jax"), "jax_several": Side("jax", {"updates": 2 if tiny else 32})}
    given = _timed(settings, "resnet20", "full", "float32" if tiny else "bfloat16")
    made.append(_row(settings, "several_updates/resnet20", given, several))
    swept = {**settings.data_of(_SYNTHETIC[settings.size]), **_SWEPT[settings.size]}
    widths = {
        name: Ask("jax", "sweep", {**swept, "width": width}, fresh=True)
        for name, width in (("one_after_the_other", 1), ("together", swept["members"]))
    }
    made.append(Asked("sweep_of_convolutions", _about(settings, 120), widths))
    batch = {"batch_size": 2, "seconds": 0.01} if tiny else {"batch_size": 256, "seconds": 1.0}
    stems = {
        f"{network}/{dtype}": Ask("jax", "stem_channels", {**stem, **batch, "dtype": dtype})
        for network, stem in _STEMS[settings.size].items()
        for dtype in ("bfloat16", "float32")
    }
    made.append(Asked("stem_channels", _about(settings, 30), stems))
    sets = described.get("option_sets", {}).get("sets", {})
    if not sets:
        made.append(
            Asked("compiler_options", _about(settings, 20), {"options": Ask("jax", "options")})
        )
    for name, options in sets.items():
        both = {"jax": Side("jax"), f"jax_{name}": Side("jax", {"compiler_options": options})}
        for network in ("resnet20",) if tiny else ("resnet50", "resnet20"):
            given = _timed(settings, network, "full", "bfloat16")
            made.append(_row(settings, f"compiler_options/{name}/{network}", given, both))
    return made


def _linear_probe(settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    given = {**settings.data_of(_SYNTHETIC[settings.size]), "epochs": _PROBE_EPOCHS[settings.size]}
    cold, warm = (
        Ask("jax", "linear_probe", {**given, "cold": is_cold}, fresh=True)
        for is_cold in (True, False)
    )
    made: list[Row] = [Asked("jax", _about(settings, 90), {"cold": cold, "warm": warm})]
    if "torch_eager" in settings.children:
        forms = (
            {"features_once": given}
            if settings.tiny
            else {
                "features_once": given,
                "tutorial": {**given, "epochs": 2},
            }
        )
        for form, arguments in forms.items():
            ask = Ask("torch_eager", "linear_probe", {**arguments, "form": form}, fresh=True)
            made.append(Asked(f"torch/{form}", _about(settings, 90), {"run": ask}))
    return made


def _time_to_accuracy(settings: Settings, described: Mapping[str, Any]) -> list[Row]:
    default = _SYNTHETIC["tiny"] if settings.tiny else "digits"
    given = {**settings.data_of(default), "epochs": settings.epochs or _EPOCHS[settings.size]}
    given["batch_size"] = 64 if settings.tiny or not settings.data else 512
    weights = settings.weights or _PACKAGED
    tune = Ask("jax", "fine_tune", {**given, "weights": weights}, fresh=True)
    made: list[Row] = [Asked("jax/fine_tuned", _about(settings, 120), {"run": tune})]
    if "torch_eager" in settings.children:
        scratch = Ask("torch_eager", "airbench", given, fresh=True)
        made.append(Asked("torch/airbench_from_scratch", _about(settings, 120), {"run": scratch}))
    return made


def _row(
    settings: Settings, name: str, given: dict[str, Any], sides: dict[str, Side] | None = None
) -> Timed:
    sides = sides or settings.sides()
    rounds, turn_seconds = (2, 0.01) if settings.tiny else (5, 0.7)
    seconds = _about(settings, 30 + 30 * (len(sides) - 1))
    tolerance = _TOLERANCE[given["precision"]]
    return Timed(name, seconds, sides, given, rounds, turn_seconds, tolerance)


def _timed(
    settings: Settings, name: str, mode: str, precision: str, batch_size: int = 0
) -> dict[str, Any]:
    """Returns the arguments of the command "prepare"."""
    network = _network(settings, name)
    return {
        "network": _arguments(settings, name),
        "mode": mode,
        "precision": precision,
        "batch_size": batch_size or network.batch_sizes["gpu"],
    }


def _network(settings: Settings, name: str) -> Network:
    return _TINY if settings.tiny else {**NETWORKS, "vgg16": _VGG16}[name]


def _arguments(settings: Settings, name: str) -> dict[str, Any]:
    return dataclasses.asdict(_network(settings, name))


def _about(settings: Settings, seconds: float) -> float:
    """Returns what a row takes, about: as given on a GPU, little where it is tiny."""
    return 5.0 if settings.tiny else seconds
