"""Reads an offline W&B run back: records of a LevelDB log, for which wandb has no reader in Python."""

import json
import struct
import zlib

BLOCK = 32768  # bytes; no piece of a record crosses the end of one


def read_offline(folder):
    """What was recorded: the run, its config, history, summary, number of stats and exit code."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    found = {"run": None, "config": {}, "history": [], "summary": {}, "stats": 0, "exit": None}
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= items(record.run.config.update)
        elif kind == "history":
            found["history"].append(items(record.history.item))
        elif kind == "summary":
            found["summary"] |= items(record.summary.update)
        elif kind == "stats":
            found["stats"] += 1
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def records(raw):
    assert raw[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(raw):
        if BLOCK - place % BLOCK < 7:  # filled up with zeros
            place += BLOCK - place % BLOCK
            continue
        checksum, length, piece = struct.unpack_from("<IHB", raw, place)
        content = raw[place + 7 : place + 7 + length]
        if not piece:
            return
        assert zlib.crc32(bytes([piece]) + content) == checksum
        place += 7 + length
        record += content
        if piece in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def items(pairs):
    return {".".join(pair.nested_key) or pair.key: json.loads(pair.value_json) for pair in pairs}
