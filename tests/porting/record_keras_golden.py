"""Records what Keras computes with the weights of `fabricate`, for machines without it.

python tests/porting/record_keras_golden.py
"""

import json

import keras_parity
import keras_reference
from golden_features import GOLDEN, describe

from tl_jax import porting

CASES = [case for case in keras_parity.CASES if case.id in ("keras_resnet50-32", "vgg16-pooled-32")]


def record(case):
    model, variables, images = keras_parity.make_ours(case)
    net = keras_reference.network(case.name, keras_parity.NUM_CLASSES, case.size, top=case.top)
    keras_reference.load(net, porting.export_state_dict(variables, naming="keras"))
    features = keras_reference.boundary_features(case.name, net, images, model.boundaries)
    version = keras_reference.keras.__version__
    return {"keras": version, "image_size": case.size, **describe(features)}


def main():
    for case in CASES:
        path = GOLDEN / f"{case.name}_of_keras.json"
        path.write_text(json.dumps(record(case), indent=1) + "\n")
        print(f"recorded {path.name}")


if __name__ == "__main__":
    main()
