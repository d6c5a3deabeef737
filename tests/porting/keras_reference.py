"""The networks of Keras, on its JAX backend, with given weights; and files of them in each of its layouts."""

import os
import re

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is imported

import keras
import numpy as np

# Our registered name: the application of Keras.
APPLICATIONS = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "keras_resnet50": "ResNet50",
    "keras_resnet101": "ResNet101",
    "keras_resnet152": "ResNet152",
}


def network(name, num_classes, size, *, top):
    """Returns a functional model whose output are logits.

    Args:
        name: our registered name.
        num_classes: of the head.
        size: of the images, in pixels.
        top: whether it is built with Keras' top; else pooled, with one dense layer named by Keras.
    """
    keras.backend.clear_session()
    make = getattr(keras.applications, APPLICATIONS[name])
    if top:
        return make(weights=None, classes=num_classes, classifier_activation=None)
    base = make(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    return keras.Model(base.input, keras.layers.Dense(num_classes)(base.output))


def load(net, state_dict):
    """Gives each layer its weights, {LAYER/VARIABLE: array}; the layer after the backbone those of "predictions"."""
    left = dict(state_dict)
    for layer in net.layers:
        name = "predictions" if layer is net.layers[-1] else layer.name
        values = [left.pop(f"{name}/{re.sub('.*/', '', weight.path)}") for weight in layer.weights]
        layer.set_weights(values)
    assert not left, sorted(left)
    return net


def save(net, path):
    """Writes weights to `.weights.h5`, or the whole model to `.keras` or `.h5`."""
    (net.save_weights if path.name.endswith(".weights.h5") else net.save)(path)


def boundary_features(name, net, images, boundaries):
    """Returns {boundary: array} for images [B, H, W, 3] in RGB, of which Keras gets BGR."""
    layers = [layer.name for layer in net.layers]
    outputs = {}
    for boundary in boundaries:
        stage = int(boundary.removeprefix("stage")) if boundary.startswith("stage") else 0
        if stage and name.startswith("vgg"):
            layer = f"block{stage}_pool"
        elif stage:
            blocks = [
                layer for layer in layers if re.fullmatch(rf"conv{stage + 1}_block\d+_out", layer)
            ]
            layer = blocks[-1]
        elif boundary == "pool":
            layer = next(
                layer for layer in layers if re.match("flatten|avg_pool|global_average", layer)
            )
        else:
            layer = {"stem": "pool1_pool", "hidden": "fc2", "head": layers[-1]}[boundary]
        outputs[boundary] = net.get_layer(layer).output
    tapped = keras.Model(net.input, outputs)
    features = tapped.predict(images[..., ::-1], verbose=0)
    return {boundary: np.asarray(array) for boundary, array in features.items()}
