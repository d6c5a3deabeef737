"""TensorBoard event files of scalars.

An event file is a sequence of records: length, its checksum, a serialised `tensorflow.Event`, its checksum. The few
fields that scalars need are encoded here, as packages that write events import TensorFlow or, where it is installed,
PyTorch: two seconds of every start.

Source: tensorflow/core/util/event.proto, framework/summary.proto and lib/io/record_writer.h.
"""

import functools
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Self

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types
_SESSION_START = 1
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127


class EventWriter:
    """Writes scalars to a new event file, which TensorBoard can read at any time.

    Args:
        folder: of event files, made if need be.
        purge_step: TensorBoard hides what earlier files say of this step and later ones; None: of
            none.
        suffix: of the file's name, which otherwise holds the second and the machine.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int | None = None, suffix: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}{suffix}"
        self._file = (folder / name).open("ab")
        self._write(purge_step or 0, _field(3, _BYTES, b"brain.Event:2"))
        if purge_step is not None:
            self._write(purge_step, _field(7, _BYTES, _field(1, _VARINT, _SESSION_START)))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one point of each of the named curves, as float32: beyond its range, its end."""
        values = (
            _field(1, _BYTES, _field(1, _BYTES, name.encode()) + _field(2, _FLOAT, value))
            for name, value in scalars.items()
        )
        self._write(step, _field(5, _BYTES, b"".join(values)))

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, step: int, content: bytes) -> None:
        event = _field(1, _DOUBLE, time.time()) + _field(2, _VARINT, step) + content
        length = struct.pack("<Q", len(event))
        record = (length, _masked_checksum(length), event, _masked_checksum(event))
        self._file.write(b"".join(record))
        self._file.flush()


def _field(number: int, wire_type: int, value: int | float | bytes) -> bytes:
    """Returns a field of a protocol buffer."""
    tag = _varint(number << 3 | wire_type)
    if isinstance(value, bytes):
        return tag + _varint(len(value)) + value
    if wire_type == _VARINT:
        return tag + _varint(int(value))
    if wire_type == _DOUBLE:
        return tag + struct.pack("<d", value)
    return tag + struct.pack("<f", max(-_LARGEST_FLOAT, min(value, _LARGEST_FLOAT)))


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _masked_checksum(data: bytes) -> bytes:
    """Returns CRC-32C, rotated and offset as records want it."""
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table
