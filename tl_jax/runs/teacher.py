"""The teacher of a run, where `objective.teacher_source` describes it: trained first, in its own folder."""

import copy

import ml_collections

from tl_jax.config import assigned, default_config, naming_fields
from tl_jax.errors import InputError

FOLDER = "teacher"  # of a run's folder


def teacher_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of the run that `objective.teacher_source` describes.

    It is `config` with these assignments; what they do not set is as in `config`, but for phases, and the sections
    objective and soup, which are at their defaults. With the same images and start it is self-distillation.

    Raises:
        InputError: if a teacher is given beside, or an assignment makes no sense.

    Source: Furlanello, Lipton, Tschannen, Itti and Anandkumar 2018, "Born-Again Neural Networks" (arXiv:1805.04770).
    """
    assignments = tuple(config.objective.teacher_source)
    if config.objective.teacher:
        raise InputError(
            f"objective.teacher={config.objective.teacher} and objective.teacher_source={assignments}: give one, the "
            "folder of a finished run or what describes a run"
        )
    described, defaults = copy.deepcopy(config), default_config()
    described.objective, described.soup, described.phases = defaults.objective, defaults.soup, ()
    described.report.html = False
    with naming_fields(config, "objective.teacher_source"):
        described = assigned(described, assignments)
    if described.objective.teacher_source:
        raise InputError(
            f"objective.teacher_source={assignments}: a teacher has no teacher that is trained first; expected "
            "objective.teacher=FOLDER there"
        )
    return described
