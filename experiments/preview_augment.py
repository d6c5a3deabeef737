r"""Shows what the training images of a config become, on a page.

    python -m experiments.preview_augment --config=configs/quickstart.py --workdir=runs/preview \
        "--config.augment.operations=('rotation=15', 'color_jitter=0.4')"

Images of the first update beside what updates draw, and every operation alone. Nothing is trained.
"""

from absl import flags

from experiments import cli
from tl_jax.runs.preview import preview_augment

cli.define_run_flags()
_IMAGES = flags.DEFINE_integer("images", 8, "Images that are shown.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 6, "Draws of each image.", lower_bound=1)


def main() -> None:
    """Writes the page of the config."""
    preview_augment(cli.config(), cli.workdir(), images=_IMAGES.value, draws=_DRAWS.value)


if __name__ == "__main__":
    cli.run(main)
