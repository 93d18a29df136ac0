"""The data record of a mirror module on disk: `data.json` (`automaton/data.py` says what it means).

The file is replaced whole and synced. One that cannot be read makes the node a node that was never synchronised: it
never starts by itself, and nothing of the data is touched.
"""

from __future__ import annotations

from pathlib import Path

from safekit.automaton.codec import UnreadableState, decode, encode
from safekit.automaton.data import BLANK, DataRecord, Holder
from safekit.automaton.vocabulary import Role
from safekit.files import UnreadableFile, read_json, write_json

FORMAT = 1


def read_record(path: Path) -> tuple[DataRecord, str]:
    """The record, and what is wrong with the file (empty: nothing)."""
    try:
        value = read_json(path)
        if value is None:
            return BLANK, ""
        record = decode(value["record"])
    except (UnreadableFile, UnreadableState, KeyError, TypeError) as error:
        return BLANK, f"the data record cannot be read and counts as never synchronised: {error}"
    return record, ""


def write_record(path: Path, record: DataRecord) -> None:
    """Replace the record; durable when this returns, on a disk without a free byte too. Raises OSError."""
    write_json(path, {"format": FORMAT, "record": encode(record)}, durable=True, reserve=True)


def to_text(record: DataRecord) -> str:
    """The generation and its ancestors as one word, for the data plane to carry."""
    return ",".join((record.generation, *record.history)) if record.generation else ""


def from_text(text: str) -> DataRecord:
    """What a primary published: its generation and history; the epoch is the generation's first part."""
    generation, *history = text.split(",")
    epoch = int(generation.split(".", 1)[0])
    return DataRecord(epoch, generation, tuple(history), Holder.BOTH, Role.PRIM, clean=False)
