"""The weights that a run starts from, and the preprocessing that comes with them."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from safetensors import SafetensorError, safe_open

from tl_jax import models, porting, trees
from tl_jax.augment.preprocessing import Preprocessing
from tl_jax.compilation import computed
from tl_jax.config import default_config, naming_fields
from tl_jax.errors import InputError, unknown

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
EXPORTED = "weights.safetensors"  # of every finished run
METADATA_KEY = "tl_jax"  # in its header


@dataclasses.dataclass(frozen=True)
class Initial:
    """Where a run starts.

    Attributes:
        variables: {"params", "batch_stats"}.
        preprocessing: what the weights were trained with; None where it is unknown.
        port_report: the account of ported weights; None for random ones.
        deviations: what is assumed of the weights, a line each.
    """

    variables: dict[str, Any]
    preprocessing: dict[str, Any] | None
    port_report: porting.PortReport | None
    deviations: tuple[str, ...] = ()


def find(config: ml_collections.ConfigDict) -> str:
    """Returns what `init.weights` stands for: "", a registered name, or the path of a file.

    Raises:
        InputError: if it is none of these, nor a finished run, or is of another model; nothing is downloaded.
    """
    given = config.init.weights
    if config.init.head not in porting.HEAD_CHOICES:
        raise unknown("init.head", config.init.head, porting.HEAD_CHOICES)
    if given in models.list_pretrained():
        _check_match(config, given)
    if config.init.reset and not given and not config.init.source:
        raise InputError(
            f"init.reset={tuple(config.init.reset)} without init.weights: all is random; expected weights, or ()"
        )
    channel_order = config.init.channel_order
    if channel_order and not given and not config.init.source:
        raise InputError(
            f"init.channel_order={channel_order} without init.weights: no network takes channels in an order yet; "
            "expected weights, or ''"
        )
    if not given or given in models.list_pretrained():
        return given
    path = pathlib.Path(given).expanduser()
    if path.is_dir():
        path = path / EXPORTED
        if not path.is_file():
            raise InputError(
                f"init.weights={given}: no {EXPORTED} in this folder; expected a finished run, a "
                "weights file, or one of models.list_pretrained()"
            )
    with naming_fields(config, "init.weights"):
        porting.check_source(path)
    if channel_order == "bgr" and _description(path):
        raise InputError(
            f"init.channel_order=bgr with init.weights={given}: a run of tl_jax wrote these weights, and its "
            "networks take RGB; expected rgb or ''"
        )
    return str(path)


def start_from(config: ml_collections.ConfigDict, run: str | pathlib.Path) -> None:
    """Makes a config start from the weights of a finished run, as they are."""
    config.init = default_config().init
    config.init.weights, config.init.head = str(run), "keep"


def preprocessing_of(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """Returns the preprocessing that the weights of a run were trained with, or None where it is unknown.

    Raises:
        InputError: if `preprocess.weights` is no registered name.
    """
    registered = config.preprocess.weights
    if registered:
        with naming_fields(config, "preprocess.weights"):
            models.get_pretrained(registered)
    return trained_with(registered or find(config))


def trained_with(weights: str) -> dict[str, Any] | None:
    """Returns the preprocessing that weights were trained with, or None where it is unknown.

    Args:
        weights: from `find`.
    """
    if weights in models.list_pretrained():
        known = models.get_pretrained(weights)
        return {
            "mean": known.mean,
            "std": known.std,
            "interpolation": known.interpolation,
            "image_size": known.image_size,
            "resize": known.resize_size,
        }
    return _description(weights).get("preprocessing")


def _description(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns what a weights file of ours says of itself, see `results.save_weights`; {} for others."""
    if not str(path).endswith(".safetensors"):
        return {}
    try:
        with safe_open(path, "numpy") as file:
            return json.loads((file.metadata() or {})[METADATA_KEY])
    except (KeyError, OSError, SafetensorError):  # of other makers, or damaged: porting says how
        return {}


def input_size(config: ml_collections.ConfigDict, image_shape: Sequence[int]) -> int:
    """Returns the side of the network's input in pixels: of the config, of the weights, or as stored."""
    own = preprocessing_of(config)
    return config.data.image_size or (own["image_size"] if own else min(image_shape[:2]))


def make_initial(
    config: ml_collections.ConfigDict,
    model: models.Network,
    class_names: Sequence[str],
    image_size: int,
) -> Initial:
    """Returns the variables that training starts from: ported, from a run folder, or random.

    Args:
        config: of the run.
        model: its network.
        class_names: of the data. A head that is kept is put in their order, by name.
        image_size: side of its input in pixels; a user's network may have parameters that depend on it.

    Raises:
        InputError: if the weights cannot be found or read, do not fit the network, or their head is to be
            kept and has other classes.
    """
    key = jax.random.key(config.seed)
    source = find(config)
    shape = (1, image_size, image_size, 3)
    if not source:
        return Initial(models.init_variables(model, key, shape), None, None)
    order: list[int] | None = None
    deviations: list[str] = []
    if config.init.head == "keep":
        names = class_names_of_weights(source)
        order, deviations = match_head(
            names,
            class_names,
            f"init.weights={config.init.weights}, init.head=keep",
            "; init.head=reset starts a fresh head, to be trained",
        )
    chosen = config.init.channel_order or None
    with naming_fields(
        config,
        "model.name",
        "init.weights",
        head="init.head",
        reset="init.reset",
        channel_order="init.channel_order",
    ):
        variables, report = porting.load_pretrained(
            source,
            models.plain(model),
            input_shape=shape,
            head=config.init.head,
            reset=tuple(config.init.reset),
            key=key,
            channel_order=chosen,
        )
    if report.weights and chosen:
        stated = models.get_pretrained(report.weights).channel_order
        if chosen != stated:
            deviations.append(
                f"init.channel_order is {chosen}, the network of {report.weights} takes {stated}"
            )
    if report.channel_order == "bgr" and not report.weights and not chosen:
        deviations.append(
            f"{config.init.weights} does not say in which order its network takes channels; taken as BGR, "
            "as Keras' own networks do (init.channel_order=rgb otherwise)"
        )
    if order is not None:
        variables = porting.reorder_head(variables, order)
        report = porting.with_matched_head(report)
    if isinstance(model, models.Adapted):
        leaves = trees.flatten(variables["params"])
        shapes = jax.eval_shape(lambda: leaves)
        adapters = computed(lambda key: model.leaves(shapes, key), key)
        variables = {**variables, "params": trees.unflatten(leaves | adapters)}
    return Initial(variables, preprocessing_of(config), report, tuple(deviations))


def match_head(
    names: Sequence[str], class_names: Sequence[str], source: str, hint: str = ""
) -> tuple[list[int] | None, list[str]]:
    """Returns how to order the classes of a head that is kept (None: as they are), and lines about it.

    Args:
        names: of the head's classes; empty where they are unknown.
        class_names: of the data.
        source: what messages call the weights.
        hint: ends the message where the names are not the same.

    Raises:
        InputError: if the names are not the same, in any order.
    """
    unnamed = [
        place
        for place, given in (("the weights", names), ("the data", class_names))
        if not given or not porting.are_named(given)
    ]
    if len(unnamed) == 1 or not names:
        return None, [
            f"{source}: {' and '.join(unnamed)} have no names of classes, so the classes of the head are "
            "assumed to be in the order of the data's"
        ]
    try:
        order = porting.class_order(names, class_names)
    except InputError as error:
        raise InputError(
            f"{source}: {error}\nexpected the same names, in any order{hint}"
        ) from error
    if order is None:
        return None, []
    return order, [
        f"{source}: the classes of the head were put in the order of the data's, by name"
    ]


def class_names_of_weights(source: str) -> list[str]:
    """Returns the names of the classes of a head, in its order; empty where they are unknown.

    Args:
        source: from `find`, or the path of a file.
    """
    if source in models.list_pretrained():
        known = models.get_pretrained(source)
        # Files of other makers hold no names: none is downloaded to look for them.
        return _description(porting.fetch(known)).get("class_names", []) if known.packaged else []
    return _description(source).get("class_names", [])


def _check_match(config: ml_collections.ConfigDict, source: str) -> None:
    known = models.get_pretrained(source)
    if known.model != config.model.name:
        raise InputError(
            f"init.weights={source} are weights of {known.model}, model.name is {config.model.name}; "
            f"add --config.model.name={known.model}, or choose from "
            + ", ".join(models.list_pretrained(f"{config.model.name}.*"))
        )
    if config.init.head == "keep" and not known.num_classes:
        raise InputError(
            f"init.head=keep: {source} has no head; init.head=reset starts a fresh one, or choose from "
            + ", ".join(
                name
                for name in models.list_pretrained(f"{known.model}.*")
                if models.get_pretrained(name).num_classes
            )
        )
    classifiers = models.get_architecture(known.model).options.get("classifier", ())
    if not known.num_classes and classifiers and config.model.classifier != "pooled":
        raise InputError(
            f"init.weights={source} has no hidden layers; add --config.model.classifier=pooled, or choose "
            f"{known.name.removesuffix('_notop')}"
        )


def host_size(config: ml_collections.ConfigDict) -> int:
    """Returns the side to which the host brings photos and images of mixed sizes, in pixels; 0 if open.

    It is that of the resize before the centre crop, so that the device crops what is left. (A square of
    it is cut out before: by one pixel another one than without, where the two margins are both odd.)
    """
    own = preprocessing_of(config) or {"image_size": 0, "resize": 0}
    side = config.data.image_size or own["image_size"]
    in_proportion = round(own["resize"] * side / own["image_size"]) if own["image_size"] else 0
    return config.preprocess.resize or in_proportion or side


def host_interpolation(config: ml_collections.ConfigDict) -> str:
    """Returns how the host resizes: as the device would."""
    own = preprocessing_of(config) or {"interpolation": "bilinear"}
    return config.preprocess.interpolation or own["interpolation"]


def make_preprocessing(
    config: ml_collections.ConfigDict, initial: Initial, image_shape: tuple[int, ...]
) -> tuple[Preprocessing, list[str]]:
    """Returns the preprocessing and a line for each deviation from that of the weights.

    The weights decide unless the config does. A stored size is resized to the network's input size;
    where neither says one, images keep the size at which they are stored. Where the config asks for
    another image size only, the resize before the centre crop keeps its proportion to it.

    Raises:
        InputError: if a value is out of range.
    """
    own = initial.preprocessing or {
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "interpolation": "bilinear",
        "image_size": min(image_shape[:2]),
        "resize": 0,
    }
    chosen = {
        "mean": config.preprocess.mean,
        "std": config.preprocess.std,
        "interpolation": config.preprocess.interpolation,
        "image_size": config.data.image_size,
        "resize": config.preprocess.resize,
    }
    used: dict[str, Any] = {}
    deviations = list(initial.deviations)
    for name, value in chosen.items():
        theirs: Any = tuple(own[name]) if isinstance(own[name], (list, tuple)) else own[name]
        if name == "resize":
            theirs = round(theirs * used["image_size"] / own["image_size"])
        # A config read back from its JSON holds lists.
        used[name] = (
            tuple(map(float, value)) if isinstance(theirs, tuple) and value else value or theirs
        )
        if initial.preprocessing is not None and used[name] != theirs:
            deviations.append(
                f"preprocessing {name} is {used[name]}, the weights were trained with {theirs}"
            )
    if config.init.weights and initial.preprocessing is None:
        deviations.append(
            f"{config.init.weights} does not say what it was trained with; used: mean {used['mean']}, "
            f"std {used['std']}, {used['interpolation']} (config.preprocess changes it)"
        )
    with naming_fields(
        config,
        "preprocess.resize",
        "preprocess.mean",
        "preprocess.std",
        "data.image_size",
    ):
        spec = Preprocessing(
            image_size=used["image_size"],
            resize=used["resize"] or None,
            interpolation=used["interpolation"],
            mean=used["mean"],
            std=used["std"],
        )
    return spec, deviations


def read_preprocessing(described: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that `describe_preprocessing` described, for evaluation."""
    return Preprocessing(
        image_size=described["image_size"],
        resize=described["resize"] or None,
        interpolation=described["interpolation"],
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
    )


def describe_preprocessing(spec: Preprocessing) -> dict[str, Any]:
    """Returns what a network's input must look like, as plain values: the inverse of reading it back."""
    return {
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "image_size": spec.image_size,
        "resize": spec.resize or 0,
    }
