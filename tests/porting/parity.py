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
        stem: None for the model's own.
    """

    name: str
    references: tuple[str, ...]
    size: int = 64
    stem: str | None = None

    @property
    def id(self):
        stem = f"-{self.stem}" if self.stem else ""
        return f"{self.name}{stem}-{self.size}"


_IMAGENET = ("torchvision", "timm")
CASES = tuple(
    [Case(name, _IMAGENET) for name in models.list_models() if "cifar" not in name]
    + [Case(name, ("cifar",), size=32) for name in models.list_models() if "cifar" in name]
    + [Case("resnet50", _IMAGENET, size=224), Case("resnet18", ("torchvision",), 32, "cifar")]
    + [Case(name, ("huggingface",)) for name in ("resnet18", "resnet50")]
)


def make_reference(case, reference):
    """Returns the reference network's constructor and the naming of its state dict."""
    if reference == "timm":
        return (lambda: torch_reference.timm_resnet(case.name, NUM_CLASSES)), "timm"
    if reference == "huggingface":
        return (lambda: torch_reference.huggingface_resnet(case.name, NUM_CLASSES)), "huggingface"
    if reference == "cifar":
        naming = "torchvision" if case.name.endswith("_b") else "cifar"
        return (lambda: torch_reference.cifar_resnet(case.name, NUM_CLASSES)), naming
    stem = case.stem or "imagenet"
    return (lambda: torch_reference.torchvision_resnet(case.name, NUM_CLASSES, stem)), "torchvision"


def measure(case):
    """Returns {reference: {boundary: max relative error}} for random weights and statistics.

    The weights go out through `export_state_dict` and into each reference with `strict=True`; the
    first reference's state dict comes back through `port_state_dict` before it is used here.
    """
    model = models.create_model(case.name, NUM_CLASSES, stem=case.stem)
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
        run = (
            torch_reference.huggingface_features
            if reference == "huggingface"
            else torch_reference.boundary_features
        )
        theirs = run(net, images)
        assert tuple(theirs) == model.boundaries
        errors[reference] = {
            name: relative_error(ours[name], theirs[name]) for name in model.boundaries
        }
    return errors
