"""What a run minimises, from its config, and the frozen networks that its objectives look at."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from tl_jax import features, files, models, objectives, trees
from tl_jax.augment.preprocessing import Preprocessing
from tl_jax.config import FIELDS, completed, naming_fields
from tl_jax.data import Split
from tl_jax.errors import InputError, unknown
from tl_jax.models.taps import LOGITS
from tl_jax.objectives import Reference
from tl_jax.runs import weights
from tl_jax.runs.class_weights import make_class_weights, problems_of_class_weights
from tl_jax.runs.network import make_eval_forward, make_model
from tl_jax.runs.parts import is_own, must_be_given
from tl_jax.runs.run_folder import SEALED
from tl_jax.runs.source_head import SourceHead, check_source_head, read_source_head
from tl_jax.training.steps import Passes


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The network of another run.

    Attributes:
        variables: {"params", "batch_stats"}, its head in the order of this run's classes.
        forward: from `models.make_forward`.
        mean: of its input, per channel.
        std: likewise.
        digest: of its weights, so that a run that goes on notices another teacher.
        deviations: what is assumed of its classes, a line each.
    """

    variables: dict[str, Any]
    forward: Callable[..., tuple[jax.Array, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    deviations: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Minimised:
    """What a run minimises.

    Attributes:
        objective: the sum of the terms, or the only one.
        teacher: the network to distil from; None where no term asks for it.
        class_weights: of cross-entropy, in the order of the classes; () for none.
        source_head: of the weights, where a term asks for it.
        attention: what is said of DELTA's learned attention; None where it is uniform, or not learned yet.
    """

    objective: objectives.Objective
    teacher: Teacher | None = None
    class_weights: tuple[float, ...] = ()
    source_head: SourceHead | None = None
    attention: dict[str, Any] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What the objective needs, of `objectives.NEEDS`."""
        return objectives.needs_of(self.objective)

    @property
    def boundaries(self) -> tuple[str, ...]:
        """Whose features the objective looks at."""
        return objectives.boundaries_of(self.objective)

    def taps(self, model: Any) -> tuple[str, ...]:
        """Returns whose features are computed: those, and what the head of the source takes."""
        if not self.heads_source:
            return self.boundaries
        return tuple(dict.fromkeys((*self.boundaries, models.before_head(model)[-1])))

    @property
    def heads_source(self) -> bool:
        """Whether the logits of the source are those of a head beside its network."""
        return self.source_head is not None and "source.logits" in self.needs

    @property
    def needs_relationship(self) -> bool:
        """Whether the relationship of the classes is learned when the run begins."""
        return "source.relationship" in self.needs

    @property
    def needs_source(self) -> bool:
        """Whether the objective looks at the network that the run started from."""
        return bool({"source.params", "source.features", "source.logits"} & set(self.needs))

    @property
    def passes_source(self) -> bool:
        """Whether the batch passes through that network."""
        return bool({"source.features", "source.logits"} & set(self.needs))


def check_objective(config: ml_collections.ConfigDict, given: Any = None) -> None:
    """Looks at what can be judged without data and weights.

    Raises:
        InputError: if terms are missing or would have no effect.
    """
    section = config.objective
    problems = []
    if is_own(section.name) and given is None:
        raise must_be_given("objective.name", section.name, "objective")
    if section.name != objectives.CROSS_ENTROPY and section.label_smoothing:
        problems.append(
            f"objective.label_smoothing={section.label_smoothing} is of cross_entropy and would have no effect "
            f"on objective.name={section.name}; expected 0"
        )
    problems += problems_of_class_weights(section)
    if not (section.weight or section.delta or section.distillation):
        problems.append("objective.weight=0 without delta or distillation: nothing to learn from")
    if section.distillation and not (section.teacher or section.teacher_source):
        problems.append(
            f"objective.distillation={section.distillation} without objective.teacher: expected the folder of a "
            "finished run, or objective.teacher_source, which describes one"
        )
    if len(set(section.delta_boundaries)) < len(section.delta_boundaries):
        problems.append(
            f"objective.delta_boundaries={tuple(section.delta_boundaries)}: one is there twice"
        )
    if not section.weight and section.label_smoothing:
        problems.append(
            f"objective.label_smoothing={section.label_smoothing} with objective.weight=0: no effect"
        )
    if section.delta_boundaries and not section.delta:
        problems.append(
            f"objective.delta_boundaries={tuple(section.delta_boundaries)} without objective.delta: no effect"
        )
    if section.delta_attention and not section.delta:
        problems.append(
            "objective.delta_attention=True without objective.delta: no effect; expected a weight such as "
            "objective.delta=0.01"
        )
    if section.delta_attention and jax.process_count() > 1:
        problems.append(
            f"objective.delta_attention=True: learned by one process, not by {jax.process_count()}; expected one, or "
            "False"
        )
    if section.bss_k != FIELDS["objective.bss_k"].default and not section.bss:
        problems.append(f"objective.bss_k={section.bss_k} without objective.bss: no effect")
    if section.bss and config.parallel.mode == "pmap":
        problems.append(
            f"objective.bss={section.bss} with parallel.mode=pmap: the singular values would be those of the rows of "
            "each device; expected parallel.mode=jit"
        )
    if problems:
        raise InputError("\n".join(problems))
    if section.distillation and section.teacher:
        _check_teacher(pathlib.Path(section.teacher).expanduser())


def make_objective(
    config: ml_collections.ConfigDict,
    model: Any,
    given: Any = None,
    class_weights: tuple[float, ...] = (),
    **strengths: float | jax.Array,
) -> objectives.Objective:
    """Returns the objective of `config.objective`.

    Args:
        config: of the run.
        model: the Linen module.
        given: an own objective, where the config says `own:NAME`.
        class_weights: see `make_class_weights`.
        **strengths: `label_smoothing` and `l2_sp` where they are not those of the config: numbers or data.

    Raises:
        InputError: if a boundary does not exist or an objective needs what does not.
    """
    section = config.objective
    smoothing = strengths.get("label_smoothing", section.label_smoothing)
    l2_sp = strengths.get("l2_sp", section.l2_sp)
    main = given if is_own(section.name) else objectives.registered(section.name)
    if section.name == objectives.CROSS_ENTROPY:
        main = objectives.CrossEntropy(smoothing, class_weights)
    assert main is not None  # `check_objective` and the field's choices
    terms: list[tuple[Any, objectives.Objective]] = []
    if section.weight:
        terms.append((section.weight, main))
    if section.l2:
        terms.append((1.0, objectives.L2(_l2_strengths(config, model))))
    if isinstance(l2_sp, jax.Array) or l2_sp:
        terms.append((l2_sp, objectives.L2SP()))
    if section.delta:
        terms.append((section.delta, objectives.Delta(_delta_boundaries(config, model))))
    if section.bss:
        pooled = models.before_head(model)[-1]
        terms.append((section.bss, objectives.SpectralShrinkage(pooled, section.bss_k)))
    if section.distillation:
        with naming_fields(config, "objective.temperature"):
            terms.append((section.distillation, objectives.Distillation(section.temperature)))
    last = models.before_head(model)[-1]
    if section.co_tuning:
        terms.append((section.co_tuning, objectives.CoTuning(last)))
    if section.lwf:
        with naming_fields(config, "objective.lwf_temperature"):
            forgetting = objectives.LearningWithoutForgetting(last, section.lwf_temperature)
        terms.append((section.lwf, forgetting))
    only = len(terms) == 1 and not isinstance(terms[0][0], jax.Array) and terms[0][0] == 1
    objective = terms[0][1] if only else objectives.Sum(tuple(terms))
    objectives.needs_of(objective)
    objectives.params_of(objective)
    objectives.check_boundaries(objective, model.boundaries)
    return objective


def _l2_strengths(config: ml_collections.ConfigDict, model: Any) -> dict[str, float]:
    """Returns {leaf: strength} of `objective.l2`."""
    # The names alone matter; the size of the data's images is not known yet.
    side = config.data.image_size or 32
    shapes = jax.eval_shape(
        lambda: models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    )
    with naming_fields(config, "objective.l2"):
        return trees.numbers(config.objective.l2, trees.flatten(shapes["params"]), "penalty")


def _delta_boundaries(config: ml_collections.ConfigDict, model: Any) -> tuple[str, ...]:
    """Returns whose features DELTA compares: those of the config, or every map with height and width."""
    given = tuple(config.objective.delta_boundaries)
    known = models.before_head(model)
    for name in given:
        if name not in known:
            raise unknown("objective.delta_boundaries", name, known)
    if given:
        return given
    # The number of axes alone matters; the size of the data's images is not known yet.
    shapes = models.boundary_shapes(model, config.data.image_size or 32)
    return tuple(name for name, shape in shapes.items() if len(shape) == 3)


def make_minimised(
    config: ml_collections.ConfigDict,
    model: Any,
    spec: Preprocessing,
    train_split: Split,
    given: Any = None,
) -> Minimised:
    """Returns what a run minimises, its teacher read.

    Args:
        config: of the run.
        model: the Linen module.
        spec: preprocessing of the run; the teacher sees the same pixels, normalised as it was trained with.
        train_split: whose classes these are, and whose labels are counted for weights of classes.
        given: an own objective.

    Raises:
        InputError: if the teacher is no finished run, its classes or image size are others, or weights of
            classes do not fit the data.
    """
    class_weights = make_class_weights(config, train_split)
    objective = make_objective(config, model, given, class_weights)
    needs = objectives.needs_of(objective)
    source_needs = [need for need in needs if need.startswith("source.")]
    if source_needs and config.init.reset:
        raise InputError(
            f"objective {objectives.name_of(objective)} needs {source_needs[0]}, but init.reset="
            f"{tuple(config.init.reset)} starts a part at random; expected init.reset=()"
        )
    check_source_head(config, objective, model)
    head = read_source_head(config, objective, model, spec.image_size)
    if "teacher.logits" not in needs:
        return Minimised(objective, class_weights=class_weights, source_head=head)
    if not config.objective.teacher:
        raise InputError(
            f"objective {objectives.name_of(objective)} needs teacher.logits; expected "
            "objective.teacher=FOLDER of a finished run"
        )
    teacher = _read_teacher(config, spec, train_split.class_names)
    return Minimised(objective, teacher, class_weights, head)


def _read_teacher(
    config: ml_collections.ConfigDict, spec: Preprocessing, class_names: Sequence[str]
) -> Teacher:
    folder = pathlib.Path(config.objective.teacher).expanduser()
    _check_teacher(folder)
    theirs = completed(json.loads((folder / "config.json").read_text()))
    weights.start_from(theirs, folder)
    seen = weights.read_preprocessing(json.loads((folder / "preprocessing.json").read_text()))
    if seen.image_size != spec.image_size:
        raise InputError(
            f"objective.teacher={folder} sees images of {seen.image_size} pixels, this run of "
            f"{spec.image_size}; expected data.image_size={seen.image_size}"
        )
    if is_own(theirs.model.name):
        raise InputError(
            f"objective.teacher={folder}: its network, {theirs.model.name}, was given in Python; expected a run of a "
            "registered one (tl_jax.models.register)"
        )
    names = weights.class_names_of_weights(str(folder / weights.EXPORTED))
    hint = "; expected a teacher of these classes"
    _, deviations = weights.match_head(names, class_names, f"objective.teacher={folder}", hint)
    model = make_model(theirs, len(class_names))
    try:
        initial = weights.make_initial(theirs, model, class_names, seen.image_size)
    except InputError as error:
        raise InputError(f"objective.teacher={folder} does not fit: {error}") from error
    return Teacher(
        initial.variables,
        make_eval_forward(theirs, model),
        tuple(seen.mean),
        tuple(seen.std),
        files.digest(folder / weights.EXPORTED, "sha256"),
        tuple(deviations),
    )


def _check_teacher(folder: pathlib.Path) -> None:
    """Raises InputError unless a folder holds a finished run, or one whose test split has not been read."""
    names = ["config.json", "preprocessing.json", weights.EXPORTED]
    if not (folder / SEALED).is_file():
        names.insert(2, "result.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"objective.teacher={folder}: no {' and no '.join(missing)} there; expected the folder of a "
            "finished run"
        )


def reference_variables(
    minimised: Minimised,
    source: dict[str, Any],
    model: Any,
    start: str | None,
    relationship: Any = None,
) -> dict[str, Any]:
    """Returns `state.references`: the variables of the frozen networks, on the host; {} without any.

    Args:
        minimised: what the run minimises.
        source: the variables that the run started from.
        model: the Linen module.
        start: the boundary after which the trained network begins; None for images.
        relationship: of the classes, float32 [K, S], where the objective needs it.
    """
    references: dict[str, Any] = {}
    if minimised.needs_source:
        first = 0 if start is None else model.boundaries.index(start) + 1
        groups = model.boundaries[first:]
        references["source"] = {
            name: {group: tree[group] for group in groups if group in tree}
            for name, tree in source.items()
        }
    if minimised.heads_source:
        assert minimised.source_head is not None
        references["source"]["head"] = jax.tree.map(jnp.array, minimised.source_head.params)
    if minimised.needs_relationship:
        assert relationship is not None, "learned when the run begins: see `relationship.use`"
        references.setdefault("source", {})["relationship"] = jnp.asarray(relationship)
    if minimised.teacher is not None:
        references["teacher"] = minimised.teacher.variables
    return references


def check_stored(minimised: Minimised, model: Any, start: str | None) -> None:
    """Looks at whether an objective can be computed from stored activations.

    Args:
        minimised: what the run minimises.
        model: the Linen module.
        start: the boundary whose features are stored; None for images.

    Raises:
        InputError: if it looks at what they no longer hold.
    """
    if start is None:
        return
    order = list(model.boundaries)
    early = [tap for tap in minimised.taps(model) if order.index(tap) < order.index(start)]
    if early:
        raise InputError(
            f"cache.boundary={start}: objective {objectives.name_of(minimised.objective)} looks at features "
            f"of {', '.join(early)}, before it; expected a boundary up to {early[0]}, or no cache"
        )
    if minimised.teacher is not None:
        raise InputError(
            f"cache.boundary={start}: a teacher looks at the images, of which only activations are stored; "
            "expected no cache (--config.cache.boundary=)"
        )


def make_passes(
    minimised: Minimised,
    model: Any,
    spec: Preprocessing,
    *,
    start: str | None,
    prefix: str | None,
    **options: Any,
) -> Passes:
    """Returns the networks of a run's training step.

    Args:
        minimised: what the run minimises; see `check_stored`.
        model: the Linen module.
        spec: preprocessing of the run, for the teacher.
        start: the boundary whose features a batch holds; None for images.
        prefix: the boundary up to which the trained network is frozen and equal to its source; None for none.
        **options: `frozen_norms`, `norm_policy`, `axis_name`; see `models.make_forward`.
    """
    order = list(model.boundaries)
    index = order.index
    taps, begin, shared = minimised.taps(model), start, None
    reaches = prefix is not None and (start is None or index(start) < index(prefix))
    if prefix is not None and reaches and minimised.passes_source:
        inside = tuple(tap for tap in taps if index(tap) <= index(prefix))
        taps = tuple(tap for tap in taps if tap not in inside)
        begin, shared = prefix, _shared_pass(model, inside, start, prefix)
    make = functools.partial(models.make_tapped_forward, taps=taps) if taps else models.make_forward
    forward = make(model, start=begin, **options)
    references = functools.partial(
        _references,
        minimised,
        spec,
        make(model, start=begin) if minimised.passes_source else None,
        models.before_head(model)[-1],
    )
    groups = order if start is None else order[index(start) + 1 :]
    return Passes(forward, shared, references, frozenset(groups))


def _shared_pass(
    model: Any, taps: Sequence[str], start: str | None, stop: str
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """Returns what computes the part that a network and its source have in common, with features on the way."""
    frozen = models.make_tapped_forward(model, taps, start=start, stop=stop)

    def shared(params, batch_stats, images):
        features, _ = frozen(params, batch_stats, images, train=False)
        return features[stop], {tap: features[tap] for tap in taps}

    return shared


def _references(
    minimised: Minimised,
    spec: Preprocessing,
    source: Callable[..., Any] | None,
    last: str,
    variables: dict[str, Any],
    images: jax.Array,
    inputs: jax.Array,
    features: dict[str, jax.Array],
) -> dict[str, Reference]:
    """Returns what the frozen networks make of a batch.

    Args:
        minimised: what the run minimises.
        spec: preprocessing of the run.
        source: forward pass of the network that the run started from; None where no objective asks for one.
        last: the boundary whose features a head takes.
        variables: `state.references`.
        images: as the network sees them, for the teacher.
        inputs: of `source`.
        features: of the part before `source`.
    """
    made = {}
    if minimised.needs_source or minimised.needs_relationship:
        params = variables["source"].get("params")
        logits, seen = None, {}
        if source is not None:
            outputs, _ = source(params, variables["source"]["batch_stats"], inputs, train=False)
            seen = dict(outputs) if isinstance(outputs, dict) else {LOGITS: outputs}
            logits = seen.pop(LOGITS)
            seen |= features
        if minimised.heads_source:
            logits = objectives.head_logits(variables["source"]["head"], seen[last])
        relationship = variables["source"].get("relationship")
        made["source"] = Reference(logits, seen, params, relationship)
    if minimised.teacher is not None:
        theirs, teacher = variables["teacher"], minimised.teacher
        pixels = _renormalised(images, spec, teacher)
        logits, _ = teacher.forward(theirs["params"], theirs["batch_stats"], pixels, train=False)
        made["teacher"] = Reference(logits)
    return made


def _renormalised(images: jax.Array, spec: Preprocessing, teacher: Teacher) -> jax.Array:
    """Returns images normalised for this run as the teacher's input."""
    if (tuple(spec.mean), tuple(spec.std)) == (teacher.mean, teacher.std):
        return images
    mean, std, theirs, scale = (
        jnp.asarray(values, jnp.float32)[None, None, None, :]
        for values in (spec.mean, spec.std, teacher.mean, teacher.std)
    )
    return (images * std + mean - theirs) / scale


def exact_prefix(
    model: Any, frozen_mask: Any, frozen_norms: Any, norm_policy: str, image_size: int
) -> str | None:
    """Returns the last boundary up to which the network is frozen and runs in training as in evaluation."""
    try:
        return features.choose_boundary(
            model,
            "auto",
            frozen_mask=frozen_mask,
            frozen_norms=frozen_norms,
            norm_policy=norm_policy,
            image_size=image_size,
        )
    except InputError:
        return None
