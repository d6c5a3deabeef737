"""The names that other libraries give to the tensors of VGGs.

Source: `torchvision/models/vgg.py`; `timm/models/vgg.py`, whose hidden layers are convolutions; transformers has
no VGG of its own and wraps timm's (`models/timm_wrapper/modeling_timm_wrapper.py`).
"""

import re
from collections.abc import Iterable

from tl_jax.porting.naming import CONV, COUNTERS, DENSE, NORM, Leaves, Naming, Rule

_CONV_WITH_BIAS: Leaves = {**CONV, "bias": ("bias", "none")}
_IMAGE = "stage1/conv1"
_HIDDEN_ABSENT = "model.classifier=pooled: the network has no hidden layers"


def positions(modules: Iterable[str]) -> dict[str, int]:
    """Returns the number of each of our modules in `features`, a `Sequential` of all layers.

    Layers in order: each convolution, its BatchNorm where there is one, a ReLU; after each stage a max-pool.

    Example:
        >>> positions(["stage1/conv1", "stage1/conv2", "stage2/conv1", "head"])
        {'stage1/conv1': 0, 'stage1/conv2': 2, 'stage2/conv1': 5}
    """
    modules = set(modules)
    found = (re.fullmatch(r"stage(\d+)/conv(\d+)", module) for module in modules)
    places = sorted((int(place[1]), int(place[2])) for place in found if place)
    numbers: dict[str, int] = {}
    position = 0
    for index, (stage, number) in enumerate(places):
        if index and stage != places[index - 1][0]:
            position += 1  # the max-pool
        numbers[f"stage{stage}/conv{number}"] = position
        norm = f"stage{stage}/bn{number}"
        if norm in modules:
            numbers[norm] = position + 1
        position += 3 if norm in modules else 2
    return numbers


def _rules(prefix: str, hidden: dict[str, tuple[str, str]], head: str) -> tuple[Rule, ...]:
    features = prefix + "features.{position}"
    return (
        Rule(r"stage\d+/conv\d+", features, _CONV_WITH_BIAS),
        Rule(r"stage\d+/bn\d+", features, NORM),
        *(
            Rule(
                f"hidden/{ours}",
                prefix + theirs,
                {"kernel": ("weight", layout), "bias": ("bias", "none")},
            )
            for ours, (theirs, layout) in hidden.items()
        ),
        Rule(r"head", prefix + head, DENSE),
    )


_TORCHVISION_HIDDEN = {
    "fc1": ("classifier.0", "O(I77)->(77I)O"),
    "fc2": ("classifier.3", "transpose"),
}
_TIMM_HIDDEN = {
    "fc1": ("pre_logits.fc1", "OI77->(77I)O"),
    "fc2": ("pre_logits.fc2", "OI11->IO"),
}


def _timm(name: str, prefix: str) -> Naming:
    escaped = re.escape(prefix)
    return Naming(
        name,
        "VGGs",
        escaped + r"(pre_logits\.fc1\.weight|head\.fc\.weight)",
        _rules(prefix, _TIMM_HIDDEN, "head.fc"),
        COUNTERS,
        {"hidden": (escaped + r"pre_logits\.fc[12]\.(weight|bias)", _HIDDEN_ABSENT)},
        positions,
        image=_IMAGE,
    )


# Looked at in this order: the first whose marker occurs is the naming.
NAMINGS: tuple[Naming, ...] = (
    _timm("huggingface", "timm_model."),
    _timm("timm", ""),
    Naming(
        "torchvision",
        "VGGs",
        r"features\.0\.weight",
        _rules("", _TORCHVISION_HIDDEN, "classifier.6"),
        COUNTERS,
        {"hidden": (r"classifier\.[03]\.(weight|bias)", _HIDDEN_ABSENT)},
        positions,
        image=_IMAGE,
    ),
)
