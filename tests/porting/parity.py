"""Our networks compared with the reference ones, for the tests and the recorded table."""

import dataclasses

import torch_reference
from fabricate import boundary_features, random_images, random_variables, relative_error

from tl_jax import models, porting

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One network against one or more references.

    Attributes:
        name: our registered name.
        references: names of the references, of `_REFERENCES`.
        size: height and width of the images, in pixels.
        stem, classifier: None for the model's own.
    """

    name: str
    references: tuple[str, ...]
    size: int = 64
    stem: str | None = None
    classifier: str | None = None

    @property
    def id(self):
        option = self.stem or self.classifier
        return f"{self.name}{f'-{option}' if option else ''}-{self.size}"


_IMAGENET = ("torchvision", "timm")
_VGGS = [name for name in models.list_models() if name.startswith("vgg")]
# Networks that no other library publishes weights of.
OURS_ALONE = ("small_cnn",)
_IMAGENET_RESNETS = [
    name
    for name in models.list_models()
    if "cifar" not in name and name not in (*_VGGS, *OURS_ALONE) and not name.startswith("keras")
]
CASES = tuple(
    [Case(name, _IMAGENET) for name in _IMAGENET_RESNETS]
    + [Case(name, ("cifar",), size=32) for name in models.list_models() if "cifar" in name]
    + [Case("resnet50", _IMAGENET, size=224), Case("resnet18", ("torchvision",), 32, "cifar")]
    + [Case(name, ("huggingface",)) for name in ("resnet18", "resnet50")]
    # Maps of 1x1, 2x2 and 7x7 pixels before they are pooled to 7x7. The hidden layers, the same in all, are
    # 500 MB of weights: most are compared without them.
    + [Case("vgg11", _IMAGENET, 32), Case("vgg16_bn", _IMAGENET, 64), Case("vgg16", _IMAGENET, 224)]
    + [Case(name, ("torchvision",), classifier="pooled") for name in _VGGS]
    + [Case("vgg11_bn", ("huggingface",))]
)


def make_reference(case, reference):
    """Returns the reference network's constructor and the naming of its state dict."""
    if reference == "timm":
        return (lambda: torch_reference.timm_network(case.name, NUM_CLASSES)), "timm"
    if case.name in _VGGS and reference == "huggingface":
        return (lambda: torch_reference.huggingface_vgg(case.name, NUM_CLASSES)), "huggingface"
    if case.name in _VGGS:
        classifier = case.classifier or "hidden"
        make = torch_reference.torchvision_vgg
        return (lambda: make(case.name, NUM_CLASSES, classifier)), "torchvision"
    if reference == "huggingface":
        return (lambda: torch_reference.huggingface_resnet(case.name, NUM_CLASSES)), "huggingface"
    if reference == "cifar":
        naming = "torchvision" if case.name.endswith("_b") else "cifar"
        return (lambda: torch_reference.cifar_resnet(case.name, NUM_CLASSES)), naming
    stem = case.stem or "imagenet"
    return (lambda: torch_reference.torchvision_resnet(case.name, NUM_CLASSES, stem)), "torchvision"


def reference_features(case, reference, net, images):
    """Returns {boundary: NHWC array} of a reference network."""
    if case.name in _VGGS:
        return torch_reference.vgg_features(getattr(net, "timm_model", net), images)
    if reference == "huggingface":
        return torch_reference.huggingface_features(net, images)
    return torch_reference.boundary_features(net, images)


def measure(case):
    """Returns {reference: {boundary: max relative error}} for random weights and statistics.

    The weights go out through `export_state_dict` and into each reference with `strict=True`; the
    first reference's state dict comes back through `port_state_dict` before it is used here.
    """
    model = models.create_model(case.name, NUM_CLASSES, stem=case.stem, classifier=case.classifier)
    variables = random_variables(model)
    images = random_images((2, case.size, case.size, 3))
    ours, errors = None, {}
    for reference in case.references:
        make, naming = make_reference(case, reference)
        net = torch_reference.load(make, porting.export_state_dict(variables, naming=naming))
        if ours is None:
            state_dict = torch_reference.state_dict_arrays(net)
            ported, _ = porting.port_state_dict(state_dict, variables)
            ours = boundary_features(model, ported, images)
        theirs = reference_features(case, reference, net, images)
        assert set(theirs) == set(model.boundaries)
        errors[reference] = {
            name: relative_error(ours[name], theirs[name]) for name in model.boundaries
        }
    return errors
