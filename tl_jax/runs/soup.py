"""What `config.soup` says: the runs whose weights are averaged, and whether the rest of the config fits."""

import copy

import jax
import ml_collections

from tl_jax.config import assigned, default_config, naming_fields, without_updates
from tl_jax.config.phases import PHASE_SECTIONS
from tl_jax.errors import InputError
from tl_jax.parallel import sharding

FOLDER = "members"  # of a run's folder
# What members may differ in: the same network, on the same images, from the same weights.
_OF_MEMBERS = (*(f"{section}." for section in PHASE_SECTIONS), "phases", "data.batch_size")


def member_configs(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """Returns the config of each member: that of the run with the assignments of the member.

    Raises:
        InputError: if an assignment makes no sense, or is of what members have in common.
    """
    plain = copy.deepcopy(config)
    plain.soup = default_config().soup
    plain.report.html = False
    with naming_fields(config, "soup.members"):
        return [assigned(plain, assignments) for assignments in config.soup.members]


def run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config that a soup is put together from: of a run that makes no updates, and freezes nothing."""
    plain, defaults = without_updates(config), default_config()
    plain.phases, plain.soup = (), config.soup
    plain.freeze, plain.objective = defaults.freeze, defaults.objective
    plain.data.batch_size = sharding.make_mesh(config.parallel.devices).size
    return plain


def check_soup(config: ml_collections.ConfigDict) -> None:
    """Looks at what can be judged without data and weights; the configs of members are looked at by themselves.

    Raises:
        InputError: if there are members and no soup, or listing what a soup cannot go with.
    """
    section = config.soup
    if not section.name:
        if section.members:
            raise InputError(
                f"soup.members has {len(section.members)} members without soup.name: no effect; expected (), or "
                "soup.name=uniform or greedy"
            )
        return
    given, problems = f"soup.name={section.name}", []
    if len(section.members) < 2:
        problems.append(
            f"soup.members has {len(section.members)} of them; expected two or more, each a tuple of assignments "
            "such as ('optim.learning_rate=0.01',)"
        )
    strange = [
        assignment
        for assignments in section.members
        for assignment in assignments
        if not assignment.startswith(_OF_MEMBERS)
    ]
    if strange:
        problems.append(
            f"soup.members: {strange[0]!r} is not of a member: all have network, data, seed and start in common; "
            f"expected fields of {', '.join(PHASE_SECTIONS)}, phases or data.batch_size"
        )
    if config.solver.name:
        problems.append(
            f"solver.name={config.solver.name} with {given}: a head that is solved has no weights to average; "
            "expected one of them"
        )
    if config.model.adapters:
        problems.append(
            f"model.adapters={config.model.adapters} with {given}: adapters are products, and the mean of products "
            "is none of means; expected no adapters"
        )
    held_out = config.data.validation_split or config.data.validation_fraction
    if section.name == "greedy" and not held_out:
        problems.append(
            "soup.name=greedy: nothing is held out, which would say what is added; expected "
            "data.validation_fraction above 0, data.validation_split, or soup.name=uniform"
        )
    if jax.process_count() > 1:
        problems.append(f"{given}: made by one process, not by {jax.process_count()}")
    if problems:
        raise InputError("\n".join(problems))
