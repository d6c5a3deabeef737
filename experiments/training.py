"""One training run, from a config to a finished run folder."""

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from experiments import assembly, outcome
from experiments.cli import StopRequest
from experiments.evaluator import Evaluator
from tl_jax import freezing, loops, models, preprocessing, reporting, sharding, steps
from tl_jax.checkpointing import Checkpointer
from tl_jax.data import order, stream
from tl_jax.run_folder import RunFolder
from tl_jax.train_state import TrainState


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains as `config` says, in `workdir`, resuming what lies there; returns `result.json`.

    Raises:
        InputError: before anything is compiled, if the config, data or weights do not fit together.
        loops.Stopped: after SIGTERM or SIGINT, with a checkpoint saved.
        loops.NonFiniteLoss: naming step, batch and last good checkpoint.
    """
    setup = None
    if not (pathlib.Path(workdir) / "result.json").exists():
        setup = prepare(config)
    is_primary = jax.process_index() == 0
    with (
        StopRequest() as stop,
        RunFolder.open(workdir, json.loads(config.to_json()), is_primary=is_primary) as folder,
    ):
        if folder.state == "finished" or setup is None:
            result = folder.read_json("result.json")
            print(f"{folder.path} is finished: {outcome.describe(result)}")
            return result
        parameters = introduce(setup, folder)
        state, seconds = train(setup, folder, stop)
        return conclude(setup, folder, state, seconds, parameters)


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run is made of, checked to fit together; nothing compiled yet.

    Attributes:
        config: what the user asked for.
        splits: `train`, `test` and, where one is held out, `validation`.
        model: the Linen module.
        initial: the variables before the first update, and where they came from.
        preprocessing: of the pixels; `deviations` from that of the weights, a line each.
        optimisation: what moves and how.
        evaluator: whole passes over splits.
        mesh: the devices.
        total_steps: updates in the run.
    """

    config: ml_collections.ConfigDict
    splits: dict[str, Any]
    model: Any
    initial: assembly.Initial
    preprocessing: preprocessing.Preprocessing
    deviations: list[str]
    optimisation: assembly.Optimisation
    evaluator: Evaluator
    mesh: jax.sharding.Mesh
    total_steps: int

    def initial_state(self) -> TrainState:
        """Returns the state before the first update, on every device."""
        return sharding.replicate(self.mesh, self.initial_state_on_host())

    def initial_state_on_host(self) -> TrainState:
        """Returns the state before the first update."""
        params = self.initial.variables["params"]
        return TrainState(
            step=jnp.int32(0),
            seed=jnp.int32(self.config.seed),
            params=params,
            batch_stats=self.initial.variables["batch_stats"],
            opt_state=self.optimisation.tx.init(params),
        )


def prepare(config: ml_collections.ConfigDict) -> Setup:
    """Returns the run that `config` describes, having looked at everything it names.

    Raises:
        InputError: whatever does not fit; nothing has been compiled or written then.
    """
    mesh = sharding.make_mesh(config.parallel.devices)
    sharding.check_mode(config.parallel.mode)
    sharding.local_rows(mesh, config.data.batch_size)
    splits = assembly.make_splits(config)
    train_split = splits["train"]
    model = assembly.make_model(config, len(train_split.class_names))
    steps.check_accumulation(config.data.batch_size, config.optim.accumulation, mesh.size)
    total = assembly.total_steps(config, len(train_split))
    order.batch_indices(config.seed, 0, config.data.batch_size, len(train_split))
    initial = assembly.make_initial(config, model)
    spec, deviations = assembly.make_preprocessing(config, initial, train_split.image_shape)
    optimisation = assembly.make_optimisation(
        config, initial.variables["params"], total, len(train_split)
    )
    models.make_forward(
        model, frozen_norms=optimisation.frozen_norms, norm_policy=config.freeze.batch_norm
    )
    assembly.check_training(config)
    evaluator = Evaluator(model, spec, mesh, config.data.eval_batch_size)
    return Setup(
        config, splits, model, initial, spec, deviations, optimisation, evaluator, mesh, total
    )


def introduce(setup: Setup, folder: RunFolder) -> list[dict[str, Any]]:
    """Prints and writes what will be trained and from what; returns the rows of the freezing table."""
    state = jax.eval_shape(setup.initial_state_on_host)
    rows = freezing.summary(
        state.params,
        state.batch_stats,
        setup.optimisation.frozen_mask,
        setup.config.freeze.batch_norm,
        setup.optimisation.multipliers,
        state.opt_state,
    )
    if jax.process_index() == 0:
        for line in setup.deviations:
            print(f"deviation: {line}")
        if setup.initial.port_report is not None:
            folder.write_json("port_report.json", setup.initial.port_report)
        folder.write_json(
            "preprocessing.json", assembly.describe_preprocessing(setup.preprocessing)
        )
        folder.write_json("freezing.json", rows)
        reporting.print_table("Parameters", rows)
    return rows


def conclude(
    setup: Setup,
    folder: RunFolder,
    state: TrainState,
    seconds: float,
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """Evaluates the chosen state, reading the test split once; returns what `result.json` holds."""
    splits, logits = {}, {}
    for name in ("validation", "test"):
        if name in setup.splits:
            splits[name], logits[name] = setup.evaluator(
                state.params, state.batch_stats, setup.splits[name]
            )
    step, total = int(state.step), setup.total_steps
    if "validation" in splits:
        held_out = splits["validation"]["examples"]
        selection = (
            f"step {step} of {total}, the best top-1 on {held_out:,} images held out of train"
        )
    else:
        selection = f"the last step, {total}; nothing was held out to choose by"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    preprocessing = assembly.describe_preprocessing(setup.preprocessing)
    class_names = setup.splits["train"].class_names
    if jax.process_index() == 0:
        outcome.save_weights(folder, setup.config, variables, preprocessing, class_names)
    result = {
        "splits": splits,
        "selection": f"{selection}; test was read once, at the end",
        "steps": total,
        "selected_step": step,
        "train_examples": len(setup.splits["train"]),
        "wall_seconds": seconds,
        "images_per_second": total * setup.config.data.batch_size / seconds,
        "parameters": parameters,
        "frozen": freezing.verify_unchanged(
            setup.initial.variables,
            variables,
            setup.optimisation.frozen_mask,
            setup.optimisation.frozen_norms,
            setup.config.freeze.batch_norm,
        ),
        "preprocessing": preprocessing,
        "deviations": setup.deviations,
    }
    return outcome.finish(folder, setup.config, setup.splits["test"], logits["test"], result)


def train(setup: Setup, folder: RunFolder, stop: StopRequest) -> tuple[TrainState, float]:
    """Runs or resumes the updates; returns the state to report on and the seconds they took.

    That state is the best one on the validation split where there is one, else the last.
    """
    config, primary = setup.config, jax.process_index() == 0
    template = setup.initial_state()
    checkpointer = Checkpointer(folder.checkpoints)
    state = checkpointer.restore_latest(template) or template
    start = int(state.step)

    writer = (
        reporting.MetricWriter(
            folder.path, tensorboard=config.report.tensorboard, resume_step=start or None
        )
        if primary
        else None
    )
    before = _seconds_so_far(folder, start)
    began = time.perf_counter()

    def seconds() -> float:
        return before + time.perf_counter() - began

    def log(step, measured):
        rate = float(setup.optimisation.schedule(step - 1))
        if primary:
            writer.write(step, "train", {**measured, "learning_rate": rate, "seconds": seconds()})

    def evaluate(state):
        if "validation" not in setup.splits:
            return None
        measured, _ = setup.evaluator(state.params, state.batch_stats, setup.splits["validation"])
        if primary:
            writer.write(int(state.step), "validation", {**measured, "seconds": seconds()})
        return measured

    intervals = make_intervals(setup)
    batches = stream.batches(
        setup.splits["train"],
        config.seed,
        start,
        setup.total_steps,
        config.data.batch_size,
        sharding.local_rows(setup.mesh, config.data.batch_size),
        workers=config.data.workers,
    )
    with reporting.Progress(
        setup.total_steps, initial_step=start, batch_size=config.data.batch_size
    ) as progress:
        state = loops.train(
            state,
            make_train_step(setup),
            batches,
            intervals,
            log=log,
            show=progress.update if primary else lambda step, loss: None,
            evaluate=evaluate,
            save=checkpointer.save,
            last_saved=checkpointer.latest_step,
            stop_requested=functools.partial(_agreed, stop, intervals.log_every),
            batch_indices=lambda step: order.batch_indices(
                config.seed, step, config.data.batch_size, len(setup.splits["train"])
            ),
        )
    took = seconds()
    if writer:
        writer.close()
    if "validation" in setup.splits:
        state = checkpointer.restore_best(template)
    checkpointer.close()
    return state, took


def make_train_step(setup: Setup):
    """Returns the compiled training step of a run."""
    config = setup.config
    transform = preprocessing.make_train_transform(setup.preprocessing)

    def make_step(axis_name):
        forward = models.make_forward(
            setup.model,
            frozen_norms=setup.optimisation.frozen_norms,
            norm_policy=config.freeze.batch_norm,
            axis_name=axis_name,
        )
        return steps.make_train_step(
            forward,
            transform,
            setup.optimisation.tx,
            frozen_mask=setup.optimisation.frozen_mask,
            label_smoothing=config.optim.label_smoothing,
            accumulation=config.optim.accumulation,
            axis_name=axis_name,
        )

    return sharding.compile_train_step(make_step, setup.mesh, config.parallel.mode)


def make_intervals(setup: Setup) -> loops.Intervals:
    """Returns what happens when, in updates; intervals in steps win over those in epochs.

    Without a validation split there is nothing to evaluate before the end.
    """
    section = setup.config.train
    eval_every = section.eval_every_steps
    if not eval_every and section.eval_every_epochs > 0:
        num_examples = len(setup.splits["train"])
        steps_between = assembly.in_steps(setup.config, section.eval_every_epochs, num_examples)
        eval_every = max(1, steps_between)
    return loops.Intervals(
        setup.total_steps,
        log_every=max(1, section.log_every_steps),
        eval_every=eval_every if "validation" in setup.splits else 0,
        checkpoint_every=section.checkpoint_every_steps,
    )


def _agreed(stop: StopRequest, every: int, step: int) -> bool:
    """Returns whether to stop after `step`; several processes ask each other every so many steps."""
    if jax.process_count() == 1:
        return stop.requested
    if step % every:
        return False
    return bool(np.any(multihost_utils.process_allgather(np.array(stop.requested))))


def _seconds_so_far(folder: RunFolder, step: int) -> float:
    if not step:
        return 0.0
    lines = reporting.read_metrics(folder.path)
    return max((line.get("seconds", 0.0) for line in lines if line["step"] <= step), default=0.0)
