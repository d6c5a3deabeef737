"""Runs the main function of a command; its outcome becomes the exit code."""

import inspect
import sys
from collections.abc import Callable

from absl import logging

from experiments.cli import arguments, runtime
from experiments.cli.help import help_text
from tl_jax import console
from tl_jax.config import list_fields
from tl_jax.errors import InputError
from tl_jax.training.loops import NonFiniteLoss, Stopped

EXIT_INPUT, EXIT_STOPPED, EXIT_FAILURE = 2, 75, 1


def run(main: Callable[..., object]) -> None:
    """Parses the flags, calls `main()` and exits with the code that its outcome stands for.

    A function with parameters is given the arguments that are no flags; for others these are an error.
    One that returns False has printed data, to which nothing is added.
    """
    if set(sys.argv[1:]) & {"--help", "-help", "--h", "-h", "-?"}:
        print(help_text(main))
        sys.exit(0)
    if "--list_fields" in sys.argv[1:]:
        print(list_fields())
        sys.exit(0)
    try:
        rest = arguments.parse(sys.argv, bool(inspect.signature(main).parameters))
        logging.set_verbosity(logging.WARNING)
        runtime.start_jax()
        with runtime.STOP, console.verbosity(runtime.level()):
            if main(*rest) is not False:
                seconds = runtime.process_seconds()
                console.say(f"{seconds:.1f} s in all, from the start of the command")
        runtime.leave()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        runtime.leave()
        sys.exit(EXIT_STOPPED)
    except NonFiniteLoss as error:
        print(
            f"error: {error}; try a lower --config.optim.learning_rate, or --config.optim.clip_norm=1",
            file=sys.stderr,
        )
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        # OSError is a full disk more often than not; its message says what is safe.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILURE)
