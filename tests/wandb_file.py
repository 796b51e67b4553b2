"""Reads the file that wandb writes offline, for the tests that compare it with what a run writes by itself."""

import struct

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
