"""Files as the versions of Keras write them, from {LAYER/VARIABLE: array}."""

import collections
import io
import json
import zipfile

import numpy as np

ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
_KERAS1 = {"kernel": "W_1", "bias": "b_1"}


def by_layer(tensors):
    """Returns {layer: {variable: array}}, the variables in Keras' order."""
    layers = collections.defaultdict(dict)
    for name in sorted(tensors, key=lambda name: ORDER.index(name.rpartition("/")[2])):
        layer, _, variable = name.rpartition("/")
        layers[layer][variable] = tensors[name]
    return dict(sorted(layers.items()))


def write_listed(group, tensors, *, keras1=False, nested=None, part=None):
    """Writes the layout of `vgg16_weights_tf_dim_ordering_tf_kernels.h5` and its like into a group or file.

    Args:
        group: of h5py.
        tensors: {LAYER/VARIABLE: array}.
        keras1: whether variables are called as in Keras 1, `block1_conv1_W_1:0`.
        nested: name of a layer that holds all of them, a model.
        part: the number of names that an attribute holds at most.
    """
    layers = by_layer(tensors)
    names = {
        layer: [
            f"{layer}_{_KERAS1[variable]}:0" if keras1 else f"{layer}/{variable}:0"
            for variable in variables
        ]
        for layer, variables in layers.items()
    }
    group.attrs["layer_names"] = np.array([b"input_1", *(layer.encode() for layer in layers)])
    group.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
    if nested:
        group.attrs["layer_names"] = np.array([b"input_1", nested.encode()])
    weights = collections.defaultdict(list)
    for layer, variables in layers.items():
        for name, array in zip(names[layer], variables.values(), strict=True):
            group[f"{nested or layer}/{name}"] = array
            weights[nested or layer].append(name.encode())
    for layer, listed in weights.items():
        if part is None:
            group[layer].attrs["weight_names"] = np.array(listed)
            continue
        for number, start in enumerate(range(0, len(listed), part)):
            group[layer].attrs[f"weight_names{number}"] = np.array(listed[start : start + part])


def write_numbered(file, layers):
    """Writes the layout of Keras 3: {path: ([array, ...], name or None)}."""
    for path, (arrays, name) in layers.items():
        for number, array in enumerate(arrays):
            file[f"{path}/vars/{number}"] = array
        if name:
            file[f"{path}/vars"].attrs["name"] = name


def write_archive(path, write, config=None):
    """Writes a `.keras` file; `write(file)` fills the HDF5 file in it."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        if config is not None:
            archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())
    return path
