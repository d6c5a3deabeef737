r"""Writes a data set whose training images have augmented copies.

    python -m experiments.extend_data --config=configs/quickstart.py --out=data/extended --copies=4 \
        "--config.augment.operations=('rotation=15', 'color_jitter=0.4')"

Validation and test are written as they are; what is held out stays out. The result is a folder of class folders for
`folder:PATH`, or a TFDS directory for `tfds:extended`.
"""

from absl import flags

from experiments import cli
from tl_jax.errors import InputError
from tl_jax.runs import extend

cli.define_run_flags()
cli.define_out_flag()
_COPIES = flags.DEFINE_integer("copies", 4, "Augmented copies of each training image.")
_STORE_AS = flags.DEFINE_string(
    "store_as", "png", "png or jpeg: class folders; tfds: a TFDS directory."
)


def main() -> None:
    """Writes the data set that the flags name."""
    out = cli.out()
    if out is None:
        raise InputError("--out must be given: the folder of the new data set")
    extend.extend_data(
        cli.config(),
        out,
        copies=_COPIES.value,
        store_as=_STORE_AS.value,
        stop_requested=cli.stop_requested,
    )


if __name__ == "__main__":
    cli.run(main)
