"""Reads the file that wandb writes offline, for the tests that compare it with what a run writes by itself."""

import json
import struct
from types import SimpleNamespace

from wandb.proto.wandb_internal_pb2 import Record

HEADER = 7  # bytes, of the file and of each piece of a record
BLOCK = 32768
WHOLE, LAST = 1, 4  # kinds of pieces that end a record


def records(path):
    """The records of a .wandb file, in order: after its header, LevelDB's log format, whose records are protocol
    buffers and may stand in pieces in several blocks."""
    data = path.read_bytes()
    position = HEADER
    record = b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # a block's last bytes hold no piece
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(record)
            record = b""


def decoded(items):
    """{key: value} of wandb's items, whose values are JSON."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def read(folder):
    """The one run that was tracked offline in a folder: its record, arguments, summary and history."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    run = SimpleNamespace(summary={}, history=[])
    for record in records(path):
        if record.HasField("run"):
            run.record = record.run
            run.config = decoded(record.run.config.update)
        if record.history.item:
            run.history.append(decoded(record.history.item))
        run.summary |= decoded(record.summary.update)
    return run
