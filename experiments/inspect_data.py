"""Looks at a data set before training: leakage between splits, duplicates, broken images.

    python -m experiments.inspect_data folder:photos --workdir=runs/photos_inspected
    python -m experiments.inspect_data --config=configs/quickstart.py --workdir=runs/inspected

With --config the splits are those that a run of it would have, held-out validation included; with a name those
of the data set. Prints a summary, and writes inspection.html and inspection.json where --workdir says.
"""

from absl import flags

from experiments import cli
from tl_jax import default_config
from tl_jax.errors import InputError
from tl_jax.runs import inspection

cli.define_run_flags()


def main(name: str = "", *others: str) -> None:
    """Inspects the data set that the argument or the config names."""
    if others:
        raise InputError(
            f"unexpected argument {others[0]!r}; expected one name, such as folder:photos"
        )
    if name and flags.FLAGS.config:
        raise InputError(
            f"{name} and --config: give one; --config.data.name={name} changes a config"
        )
    if not name and not flags.FLAGS.config:
        raise InputError("expected a data set, such as folder:photos, or --config=FILE")
    config = (
        default_config(data__name=name, data__validation_fraction=0.0) if name else cli.config()
    )
    inspection.run(config, cli.workdir() if flags.FLAGS.workdir else None)


if __name__ == "__main__":
    cli.run(main)
