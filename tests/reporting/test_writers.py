import json
import math
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from tl_jax.errors import InputError
from tl_jax.reporting import MetricWriter, read_metrics

FIRST = {"step": 1, "split": "train", "loss": 2.0}
SECOND = {"step": 2, "split": "train", "loss": 1.0}
CHECK = {"step": 2, "split": "validation", "loss": 1.5}
THIRD = {"step": 3, "split": "train", "loss": 0.5}


def put(folder, *lines, tail=""):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail)


def test_lines_are_on_disk_before_close(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    writer.write(1, "train", {"loss": 2.0})
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"step": 1, "split": "train", "loss": 2.0}\n'
    writer.close()
    writer.close()


@pytest.mark.parametrize(
    ("resume_step", "kept"),
    [
        pytest.param(None, [], id="anew"),
        pytest.param(0, [], id="before the first line"),
        pytest.param(1, [FIRST], id="later steps dropped"),
        pytest.param(2, [FIRST, SECOND, CHECK], id="both splits of the step kept"),
        pytest.param(9, [FIRST, SECOND, CHECK, THIRD], id="all kept"),
    ],
)
def test_resuming_keeps_lines_up_to_the_step(tmp_path, resume_step, kept):
    put(tmp_path, FIRST, SECOND, CHECK, THIRD)
    with MetricWriter(tmp_path, tensorboard=False, resume_step=resume_step) as writer:
        assert read_metrics(tmp_path) == kept
        writer.write(10, "train", {"loss": 0.1})
    assert read_metrics(tmp_path) == [*kept, {"step": 10, "split": "train", "loss": 0.1}]


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "spl', '{"step": 3, "split": "train", "loss": 0.5}', "{"]
)
def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path, tail):
    put(tmp_path, FIRST, SECOND, tail=tail)
    with MetricWriter(tmp_path, tensorboard=False, resume_step=5) as writer:
        writer.write(3, "train", {"loss": 0.5})
    assert read_metrics(tmp_path) == [FIRST, SECOND, THIRD]


def test_metrics_of_the_step_resumed_from_are_not_written_twice(tmp_path):
    put(tmp_path, FIRST, SECOND)
    with MetricWriter(tmp_path, tensorboard=False, resume_step=2) as writer:
        writer.write(2, "train", {"loss": 1.0})
        writer.write(2, "validation", {"loss": 1.5})
    assert read_metrics(tmp_path) == [FIRST, SECOND, CHECK]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    put(tmp_path, FIRST, {"loss": 3.0}, SECOND)
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2 is no metrics line"):
        MetricWriter(tmp_path, tensorboard=False, resume_step=5)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_numbers_that_are_not_finite_are_valid_json_and_come_back(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.nan, "high": math.inf, "low": -np.float32("inf")})

    def no_constants(name):
        pytest.fail(f"{name} is not JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=no_constants)
    assert line == {"step": 1, "split": "train", "loss": "nan", "high": "inf", "low": "-inf"}
    (read,) = read_metrics(tmp_path)
    assert math.isnan(read["loss"]) and read["high"] == math.inf and read["low"] == -math.inf


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(jnp.float32(0.5), 0.5, id="jax float32"),
        pytest.param(jnp.bfloat16(2.5), 2.5, id="jax bfloat16"),
        pytest.param(np.int64(7), 7, id="numpy integer"),
        pytest.param(jnp.array([3], jnp.int32), 3, id="one element"),
        pytest.param(5, 5, id="python integer"),
    ],
)
def test_scalars_of_every_kind(tmp_path, value, written):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, "train", {"x": value})
    (line,) = read_metrics(tmp_path)
    assert line["x"] == written and type(line["x"]) is type(written)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": np.zeros(2)}, r"'loss' must be one number.*shape \(2,\)"),
        ({"name": "cat"}, "'name' must be one number, given str"),
        ({"step": 3}, "cannot be called 'step'"),
    ],
)
def test_what_is_no_metric_is_refused_and_not_written(tmp_path, metrics, message):
    writer = MetricWriter(tmp_path, tensorboard=False)
    with pytest.raises(InputError, match=message):
        writer.write(1, "train", metrics)
    writer.close()
    assert read_metrics(tmp_path) == []


def read_events(folder):
    """Returns (tag, step, value) of every scalar in the TensorBoard files of a run."""
    points = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            # A TFRecord: length, checksum of the length, content, checksum of the content.
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            points += [(item.tag, event.step, item.simple_value) for item in event.summary.value]
            data = data[16 + length :]
    return points


def test_tensorboard_events_can_be_read(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": 2.0, "accuracy": math.nan})
        writer.write(2, "validation", {"loss": 1.5})
    assert read_events(tmp_path) == [("train/loss", 1, 2.0), ("validation/loss", 2, 1.5)]
    with MetricWriter(tmp_path, resume_step=1) as writer:
        writer.write(2, "validation", {"loss": 1.25})
    assert ("validation/loss", 2, 1.25) in read_events(tmp_path)
    with MetricWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": 4.0})
    assert read_events(tmp_path) == [("train/loss", 1, 4.0)]


def test_no_events_unless_asked(tmp_path):
    MetricWriter(tmp_path, tensorboard=False).close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
