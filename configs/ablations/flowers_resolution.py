"""The size at which the packaged ResNet-20, trained at 32 x 32 pixels, sees photos of flowers.

Command:
    python -m experiments.ablate --spec=configs/ablations/flowers_resolution.py --config.data.data_dir=DIR \
        --workdir=runs/flowers_resolution

Needs: flowers128.zip in DIR, or other photos in class folders (--config.data.name=folder:PATH).
Setting: all parameters are trained, 100 updates of 32 photos; 2 numbers of labels x 5 seeds.
The crop is of the same share of a side at every size.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns three sizes of the input."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_flowers.py")
    return Spec(
        base,
        variants={
            f"{side}px": (f"data.image_size={side}", f"augment.crop_padding={side // 16}")
            for side in (32, 64, 96)
        },
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100),
    )
