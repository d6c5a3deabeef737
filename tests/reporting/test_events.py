import struct

import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from tl_jax.reporting.events import EventWriter


def read(folder):
    """Returns the events of the only file, their checksums compared with those of tensorboardX."""
    (path,) = folder.iterdir()
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        content = data[12 : 12 + length]
        checksums = struct.unpack("<I", data[8:12]), struct.unpack("<I", data[12 + length :][:4])
        expected = record_writer.masked_crc32c(data[:8]), record_writer.masked_crc32c(content)
        assert checksums == ((expected[0],), (expected[1],))
        events.append(event_pb2.Event.FromString(content))
        data = data[16 + length :]
    return events


def test_points_come_back_with_their_checksums(tmp_path):
    with EventWriter(tmp_path / "events") as writer:
        writer.add(300, {"train/loss": 0.5, "train/größe": -2.0})
        writer.add(2**40, {"train/loss": 1e300})
    first, small, large = read(tmp_path / "events")
    assert first.file_version == "brain.Event:2"
    assert small.step == 300
    points = {value.tag: value.simple_value for value in small.summary.value}
    assert points == {"train/loss": 0.5, "train/größe": -2.0}
    assert large.step == 2**40
    assert large.summary.value[0].simple_value == pytest.approx(3.4028235e38)
    assert 1.7e9 < small.wall_time <= large.wall_time


def test_what_a_resumed_run_writes_again_is_hidden(tmp_path):
    EventWriter(tmp_path, purge_step=7, suffix=".6").close()
    _, start = read(tmp_path)
    assert (start.step, start.session_log.status) == (7, event_pb2.SessionLog.START)
