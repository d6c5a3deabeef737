"""Where training on stored activations is the same as training on images, and where it is not."""

from collections.abc import Collection
from typing import Any

from tl_jax import models, trees
from tl_jax.errors import InputError, unknown


def choose_boundary(
    model,
    wanted: str,
    *,
    frozen_mask: trees.Tree,
    frozen_norms: Collection[str],
    norm_policy: str,
    image_size: int,
) -> str:
    """Returns the boundary at which activations are stored, having made sure that it is exact.

    It is where everything from the input to the boundary is frozen, and computes in training what
    it computes in evaluation.

    Args:
        model: the Linen module.
        wanted: a boundary of the model before its head, or "auto" for the last one that is exact.
        frozen_mask: tree of bools like params, True where frozen.
        frozen_norms: names of the BatchNorm modules to which `norm_policy` applies.
        norm_policy: of those; only "frozen" leaves them out of training.
        image_size: side of the network's input in pixels.

    Raises:
        InputError: if the boundary is unknown, or training on what is stored there would not be
            exact; says why, and which boundary would be.
    """
    choices = models.before_head(model)
    if wanted not in (*choices, "auto"):
        raise unknown("cache.boundary", wanted, (*choices, "auto"))
    frozen, reason = [], ""
    for boundary in choices:
        reason = _why_not(boundary, frozen_mask, frozen_norms, norm_policy)
        if reason:
            break
        frozen.append(boundary)
        if boundary == wanted:
            break
    # From the last one back: dropout is rather in the last parts.
    exact = next(
        (
            boundary
            for boundary in reversed(frozen)
            if models.same_in_training(
                model,
                stop=boundary,
                frozen_norms=frozenset(frozen_norms),
                norm_policy=norm_policy,
                image_size=image_size,
            )
        ),
        None,
    )
    if exact is not None and wanted in ("auto", exact):
        return exact
    if frozen and (wanted == "auto" or wanted == frozen[-1]):
        reason = f"the part up to {frozen[-1]} does in training what it does not do in evaluation, such as dropout"
    nearest = "no boundary would be exact" if exact is None else f"nearest that is: {exact}"
    raise InputError(f"cache.boundary={wanted} would not be exact: {reason}; {nearest}")


def _why_not(
    boundary: str, frozen_mask: trees.Tree, frozen_norms: Collection[str], norm_policy: str
) -> str:
    """Returns why the part named `boundary` cannot be computed once; "" where it seems that it can."""
    trained = [
        name
        for name, frozen in trees.flatten(frozen_mask).items()
        if name.split("/")[0] == boundary and not frozen
    ]
    if trained:
        more = f" and {len(trained) - 1} more before it are" if trained[1:] else " before it is"
        return f"{trained[0]}{more} trained"
    norms = [name for name in frozen_norms if name.split("/")[0] == boundary]
    if norms and norm_policy != "frozen":
        return (
            f"freeze.batch_norm={norm_policy} makes {min(norms)} before it depend on the other images "
            "of a batch (expected freeze.batch_norm=frozen)"
        )
    return ""


def prefix_of(model, boundary: str, tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of `params` or `batch_stats` that the network needs up to `boundary`."""
    groups = model.boundaries[: model.boundaries.index(boundary) + 1]
    return {name: value for name, value in tree.items() if name in groups}
