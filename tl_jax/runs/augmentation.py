"""What `config.augment` says, and the operations and mixings that are given as objects."""

from collections.abc import Sequence
from typing import Any

import ml_collections

from tl_jax.augment import MIXINGS, OPERATIONS, Augmentation, Mixing, Operation
from tl_jax.augment.mixing import check_mixing
from tl_jax.augment.operations import check_operation
from tl_jax.config import naming_fields
from tl_jax.errors import InputError
from tl_jax.runs.parts import OWN, Parts


def take(
    config: ml_collections.ConfigDict, field: str, given: Sequence[Any] | None
) -> tuple[Any, ...]:
    """Sets a field of `config.augment` to the names of what is given; returns what are objects among it.

    Args:
        config: of the run.
        field: "operations" or "mixing".
        given: names such as "rotation=15", or objects; None leaves the config as it is.

    Raises:
        InputError: if one is neither, or two objects have one name and strength.
    """
    if given is None:
        return ()
    kind = {"operations": Operation, "mixing": Mixing}[field]
    wrong = [repr(one) for one in given if not isinstance(one, kind | str)]
    if isinstance(given, str) or wrong:
        raise InputError(
            f"{field}={given!r}: expected a list of names such as {field}=['name=0.5'] or objects "
            f"augment.{kind.__name__}(name, function, strength)"
        )
    own = {name_of(one): one for one in given if not isinstance(one, str)}
    for one in given:
        if not isinstance(one, str) and own[name_of(one)] != one:
            raise InputError(f"{field}: two of them are {name_of(one)!r}; expected other names")
    names = tuple(one if isinstance(one, str) else name_of(one) for one in given)
    config.augment[field] = names
    return tuple(own.values())


def name_of(given: Operation | Mixing) -> str:
    """Returns what a config calls an object, such as "own:darken=0.5"."""
    return f"{OWN}{given}"


def operations_of(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the names of the operations of a config."""
    return tuple(config.augment.operations)


def changes_images(config: ml_collections.ConfigDict) -> bool:
    """Returns whether training images are changed at random."""
    return bool(config.augment.flip or config.augment.crop_padding or operations_of(config))


def check_repeats(config: ml_collections.ConfigDict) -> None:
    """Raises InputError where an image would come several times in a row unchanged."""
    if config.augment.repeats > 1 and not changes_images(config):
        raise InputError(
            f"augment.repeats={config.augment.repeats}: without augment.flip, augment.crop_padding and "
            "augment.operations all repeats of an image are the same; expected augment.repeats=1, or one of them"
        )
    if config.augment.repeats > 1 and config.augment.once:
        raise InputError(
            f"augment.repeats={config.augment.repeats} with augment.once=True: all repeats of an image are the same; "
            "expected augment.repeats=1, or augment.once=False"
        )


def make_augmentation(config: ml_collections.ConfigDict, parts: Parts) -> Augmentation:
    """Returns the augmentation of the training images.

    Raises:
        InputError: if there is no such operation, a strength is out of range, or an own one is not given.
    """
    operations = _found(config, "operations", OPERATIONS, parts.operations)
    section = config.augment
    with naming_fields(config, "augment.crop_padding", "augment.fill"):
        return Augmentation(section.crop_padding, section.flip, operations, section.fill)


def make_mixings(config: ml_collections.ConfigDict, parts: Parts) -> tuple[Mixing, ...]:
    """Returns the mixings of the training batches.

    Raises:
        InputError: if there is no such mixing, a strength is out of range, or an own one is not given.
    """
    return _found(config, "mixing", MIXINGS, parts.mixings)


def _found(
    config: ml_collections.ConfigDict, field: str, table: Any, given: Sequence[Any]
) -> tuple[Any, ...]:
    own = {name_of(one): one for one in given}
    found = []
    for name in config.augment[field]:
        if name in own:
            found.append(own[name])
        elif name.startswith(OWN):
            raise InputError(
                f"augment.{field}: {name!r} is an object of the Python code that made this config; expected it "
                f"again, as tl_jax.finetune(..., {field}=[...])"
            )
        else:
            with naming_fields(config, f"augment.{field}"):
                found.append(table.read(name))
    return tuple(found)


def check_operations(
    config: ml_collections.ConfigDict, operations: Sequence[Operation], image_size: int
) -> None:
    """Checks that operations take and return an image of the network's input size; nothing is computed.

    Raises:
        InputError: naming the operation.
    """
    with naming_fields(config, "augment.operations"):
        for operation in operations:
            check_operation(operation, image_size)


def check_mixings(
    config: ml_collections.ConfigDict,
    mixings: Sequence[Mixing],
    num_devices: int,
    shape: tuple[int, ...],
    num_classes: int,
) -> None:
    """Checks that mixings take and return what a step has for them; nothing is computed.

    Args:
        config: of the run.
        mixings: of the training batches.
        num_devices: of the run.
        shape: of one image, or of one stored activation.
        num_classes: K.

    Raises:
        InputError: naming the field and what does not fit.
    """
    if not mixings:
        return
    given = f"augment.mixing={tuple(config.augment.mixing)}"
    if config.parallel.mode == "pmap" and num_devices > 1:
        raise InputError(
            f"{given}: with parallel.mode=pmap each of the {num_devices} devices sees its own rows alone, and "
            "mixing needs the whole batch; expected parallel.mode=jit"
        )
    if config.cache.boundary and config.cache.verify:
        raise InputError(
            f"{given}: cache.verify={config.cache.verify} compares training on activations with training on "
            "images, and the one would mix activations, the other images; expected cache.verify=0"
        )
    with naming_fields(config, "augment.mixing", "cache.boundary"):
        for mixing in mixings:
            check_mixing(mixing, config.data.batch_size, shape, num_classes)
