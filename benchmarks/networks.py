"""The networks whose steps are timed, and how they are trained; imports no framework."""

import dataclasses

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4


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
        dropout: 0 where the architecture has some: each framework would draw its own.
    """

    model: str
    stem: str | None
    image_size: int
    num_classes: int
    batch_sizes: dict[str, int]
    late: int
    dropout: float | None = None


NETWORKS = {
    "resnet20": Network("resnet20_cifar", None, 32, 10, {"cpu": 128, "gpu": 2048}, 2),
    "resnet18_32px": Network("resnet18", "cifar", 32, 10, {"cpu": 32, "gpu": 1024}, 3),
    "resnet18": Network("resnet18", None, 224, 1000, {"cpu": 16, "gpu": 256}, 3),
    "resnet50": Network("resnet50", None, 224, 1000, {"cpu": 8, "gpu": 256}, 3),
}
MODES = ("full", "frozen_late", "frozen_backbone", "forward")
ROWS = tuple(f"{network}/{mode}" for network in NETWORKS for mode in MODES)
