"""Our networks compared with those of Keras, for the tests and the recorded table."""

import dataclasses
import tempfile
from pathlib import Path

from fabricate import boundary_features, random_images, random_variables, relative_error

from tl_jax import models, porting

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One network, in one of Keras' files.

    Attributes:
        name: our registered name.
        size: height and width of the images, in pixels.
        suffix: of the file through which the weights go.
        top: whether with the top of Keras (of VGG: two hidden layers), else with a dense layer on pooled features.
        tested: whether the tests measure it too; what takes long is only recorded.
    """

    name: str
    size: int
    suffix: str = ".weights.h5"
    top: bool = False
    tested: bool = True

    @property
    def id(self):
        return f"{self.name}{'-pooled' if self.classifier == 'pooled' else ''}-{self.size}"

    @property
    def classifier(self):
        """VGG's; None for others."""
        return ("hidden" if self.top else "pooled") if self.name.startswith("vgg") else None


CASES = (
    Case("vgg16", 32, ".keras"),
    Case("vgg19", 32, ".h5"),
    Case("keras_resnet50", 32, ".keras"),
    Case("keras_resnet50", 64, ".h5", tested=False),
    Case("keras_resnet101", 64, tested=False),
    Case("keras_resnet152", 64, tested=False),
    Case("keras_resnet50", 224, top=True, tested=False),
    Case("vgg16", 224, tested=False),
    Case("vgg16", 224, top=True, tested=False),
    Case("vgg19", 224, top=True, tested=False),
)


def make_ours(case):
    """Returns our network, its random variables and images."""
    model = models.create_model(case.name, NUM_CLASSES, classifier=case.classifier)
    return model, random_variables(model), random_images((2, case.size, case.size, 3))


def measure(case):
    """Returns {boundary: max relative error} for random weights and statistics.

    The weights go out through `export_state_dict` into Keras, which writes the file that is ported here.
    """
    import keras_reference

    model, variables, images = make_ours(case)
    net = keras_reference.network(case.name, NUM_CLASSES, case.size, top=case.top)
    keras_reference.load(net, porting.export_state_dict(variables, naming="keras"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{case.suffix}"
        keras_reference.save(net, path)
        shape = (1, case.size, case.size, 3)
        ported, report = porting.load_pretrained(path, model, input_shape=shape)
    assert report.naming == "keras" and report.channel_order == "bgr"
    theirs = keras_reference.boundary_features(case.name, net, images, model.boundaries)
    ours = boundary_features(model, ported, images)
    return {name: relative_error(ours[name], theirs[name]) for name in model.boundaries}
