"""Whatever the lengths: a linear rise to the peak, no rise after it, and the end that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jax import optim

# Of one length, so that each operation is compiled once.
STEPS = 64


@st.composite
def schedules(draw):
    """Returns the arguments of a schedule of at most STEPS updates."""
    total = draw(st.integers(2, STEPS))
    name = draw(st.sampled_from(optim.SCHEDULES))
    arguments = {
        "name": name,
        "learning_rate": draw(st.floats(1e-3, 10.0)),
        "total_steps": total,
        "warmup_steps": draw(st.integers(0, total - 1)),
    }
    if name == "step":
        boundaries = draw(st.sets(st.integers(1, total - 1), min_size=1, max_size=2))
        arguments |= {"boundaries": sorted(boundaries), "decay": draw(st.floats(0.1, 1.0))}
        # One of two, since a number of boundaries is a shape of its own.
        arguments["boundaries"] = arguments["boundaries"][:1]
    if name == "cosine":
        arguments["final_fraction"] = draw(st.floats(0.0, 1.0))
    return arguments


def rates_of(arguments):
    """Returns the rates of updates 0 to STEPS - 1, and of the one after the last of the run."""
    schedule = optim.make_schedule(**arguments)
    counts = np.append(np.arange(STEPS), arguments["total_steps"])
    return np.asarray(jax.vmap(schedule)(jnp.asarray(counts)), np.float64)


@given(schedules())
def test_bounds_warmup_fall_and_end(arguments):
    rates = rates_of(arguments)
    peak, total = arguments["learning_rate"], arguments["total_steps"]
    warmup, end, rates = arguments["warmup_steps"], rates[-1], rates[:total]
    assert (rates >= 0).all() and (rates <= peak * (1 + 1e-6)).all()
    expected = peak * np.arange(1, warmup + 1) / max(warmup, 1)
    np.testing.assert_allclose(rates[:warmup], expected, rtol=1e-5)
    after = rates[warmup:]
    assert (np.diff(after) <= peak * 1e-6).all()
    if arguments["name"] == "constant":
        np.testing.assert_allclose(after, peak, rtol=1e-6)
    if arguments["name"] == "cosine":
        assert after[0] == pytest.approx(peak, rel=1e-5)
        assert end == pytest.approx(arguments["final_fraction"] * peak, abs=1e-5 * peak)
        middle = (total - warmup) // 2
        if 2 * middle == total - warmup:
            half = (1 + arguments["final_fraction"]) / 2
            assert after[middle] == pytest.approx(half * peak, rel=1e-4)
    if arguments["name"] == "step":
        passed = (np.arange(warmup, total)[:, None] >= arguments["boundaries"]).sum(1)
        np.testing.assert_allclose(after, peak * arguments["decay"] ** passed, rtol=1e-5)
