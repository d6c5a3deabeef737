"""Measures one training step of a config, part by part, and writes a trace of it.

Leaves `profile.json` and `trace/` (for TensorBoard's profile plugin or xprof). Nothing is trained.
"""

import pathlib
from typing import Any

import jax
import ml_collections

from tl_jax import console, files, models, profiling, reporting, trees
from tl_jax.augment import make_train_transform
from tl_jax.data import stream
from tl_jax.errors import InputError
from tl_jax.objectives import losses
from tl_jax.parallel import memory, sharding
from tl_jax.runs import relationship
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.run_folder import environment_facts
from tl_jax.runs.setup import Setup, prepare

_TRACED_STEPS = 5
_NOTE = (
    "Parts are differences between programs that contain each other (preprocess; with the forward pass; "
    "with the gradients; the whole step), each compiled and timed alone. A run makes the next batch on the "
    "host while the device works, so that `host_milliseconds` count only where they exceed the step's."
)


def profile(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, seconds: float = 3.0
) -> dict[str, Any]:
    """Returns what `profile.json` holds, having printed its tables.

    Args:
        config: of a run.
        workdir: a folder, made where missing; an earlier profile in it is replaced.
        seconds: how long each program is timed, about.

    Raises:
        InputError: if the config is wrong, or its step is not one pass over a batch of images.
    """
    several = config.optim.accumulation != 1 or config.optim.sam_rho
    if config.cache.boundary or several or config.parallel.mode != "jit":
        raise InputError(
            f"cache.boundary={config.cache.boundary!r}, optim.accumulation={config.optim.accumulation}, "
            f"optim.sam_rho={config.optim.sam_rho}, parallel.mode={config.parallel.mode}: the parts of a step can be "
            "measured where it is one pass over a batch of images; expected --config.cache.boundary= "
            "--config.optim.accumulation=1 --config.optim.sam_rho=0 --config.parallel.mode=jit"
        )
    if workdir.is_file():
        raise InputError(f"--workdir {workdir} is a file; give a folder")
    setup = prepare(config)
    setup = relationship.use(setup)
    state, batch = setup.initial_state(), sharding.global_batch(setup.mesh, _host_batch(setup))
    programs = _programs(setup)
    measured = {
        name: profiling.measure(
            program, state, batch, seconds=seconds, compilation=setup.compilation
        )
        for name, program in programs.items()
    }
    flop_rate = profiling.matrix_rate(config.model.dtype, seconds)
    byte_rate = profiling.copy_rate(seconds)
    step = setup.compilation.jit(programs["update"]).lower(state, batch).compile()
    with jax.profiler.trace(str(workdir / "trace")):
        for _ in range(_TRACED_STEPS):
            jax.block_until_ready(step(state, batch))
    host = profiling.time_call(
        lambda: sharding.global_batch(setup.mesh, _host_batch(setup)), seconds
    )
    rows = profiling.table(measured, flop_rate, byte_rate)
    items = [
        *memory.state_items(
            state.params, state.batch_stats, state.opt_state, setup.optimisation.frozen_mask
        ),
        *memory.step_items(step, state.params, setup.optimisation.frozen_mask),
    ]
    plan = memory.plan(items, {"device": memory.available(jax.local_devices()[0])})
    result = {
        "model": config.model.name,
        "dtype": config.model.dtype,
        "numerics": setup.compilation.facts(),
        "batch_size": config.data.batch_size,
        "image_size": setup.preprocessing.image_size,
        "images_per_second": config.data.batch_size / measured["update"].seconds,
        "parts": rows,
        "host_milliseconds": 1e3 * host,
        "matrix_gflop_per_second": flop_rate / 1e9,
        "copy_gigabytes_per_second": byte_rate / 1e9,
        "memory": plan,
        "trace": "trace",
        "note": _NOTE,
        **environment_facts(),
    }
    workdir.mkdir(parents=True, exist_ok=True)
    files.write(workdir / "profile.json", files.to_json(result))
    reporting.print_table(
        f"One step of {config.model.name}, batch {config.data.batch_size}: "
        f"{result['images_per_second']:,.0f} images/s",
        rows,
        level="normal",
    )
    console.say(
        f"measured here: {flop_rate / 1e9:,.0f} GFLOP/s in {config.model.dtype} matrix products, "
        f"{byte_rate / 1e9:,.1f} GB/s in copies; {1e3 * host:.2f} ms on the host per batch\n{_NOTE}"
    )
    reporting.print_table("Memory of a device", plan, level="normal")
    return result


def _programs(setup: Setup) -> dict[str, Any]:
    """Returns functions of (state, batch), each containing the one before it."""
    config, frozen_mask = setup.config, setup.optimisation.frozen_mask
    transform = make_train_transform(setup.preprocessing, setup.augmentation)
    forward = models.make_forward(
        setup.model,
        frozen_norms=setup.optimisation.frozen_norms,
        norm_policy=config.freeze.batch_norm,
    )
    frozen = trees.flatten(frozen_mask)

    def preprocess(state, batch):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        return transform(key, batch["position"], batch["image"])

    def loss(params, state, batch):
        logits, batch_stats = forward(
            params, state.batch_stats, preprocess(state, batch), train=True
        )
        smoothed = losses.cross_entropy(logits, batch["label"], config.objective.label_smoothing)
        return smoothed.mean(), batch_stats

    def gradients(state, batch):
        value, grads = jax.value_and_grad(loss, has_aux=True)(state.params, state, batch)
        # As in a step: gradients of frozen leaves are not asked for.
        return value, {name: g for name, g in trees.flatten(grads).items() if not frozen[name]}

    return {
        "preprocess": preprocess,
        "forward": lambda state, batch: loss(state.params, state, batch),
        "backward": gradients,
        "update": make_pure_step(setup)(axis_name=None),
    }


def _host_batch(setup: Setup) -> dict[str, Any]:
    """Returns this process's rows of the first batch, as a training step takes them."""
    rows = sharding.local_rows(setup.mesh, setup.config.data.batch_size)
    (batch,) = stream.batches(setup.splits["train"], setup.order, 0, 1, rows)
    return {name: batch[name] for name in ("image", "label", "position", "index")}
