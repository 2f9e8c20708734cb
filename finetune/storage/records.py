"""The files of a study that hold its results: trials.jsonl and curves.jsonl, append-only, and whole JSON documents.

Every row and every document ends with "crc32", the checksum of the rest, so that a damaged byte is noticed and never
read as a number. A reader of plain JSON passes over it.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import UserError
from finetune.storage import files

COMPLETE, DIVERGED, STOPPED, FAILED = "complete", "diverged", "stopped", "failed"
_TRIAL = {"id", "hparams", "status", "metrics", "best", "steps", "reason"}  # what every row of trials.jsonl holds
_CANONICAL = json.JSONEncoder(sort_keys=True)
DONE = (COMPLETE, DIVERGED)  # statuses that are results; the others run again

Row = dict[str, Any]


class Lines(NamedTuple):
    """What a .jsonl file holds."""

    rows: list[Row]  # those that are whole
    damaged: int  # how many others there are
    cut_short: bool  # whether the last one has no end, as a crash leaves it; it is not counted as damaged


class Recorder:
    """Writes the files of a study; where several processes train it together, only the first one writes."""

    def __init__(self, workdir: Path, writes: bool):
        self.workdir, self.writes = workdir, writes
        self.appended: set[str] = set()  # names of the files that were added to

    def append(self, name: str, rows: Iterable[Row]) -> None:
        """Appends rows to a .jsonl file of the study."""
        self.appended.add(name)
        if self.writes:
            append(self.workdir / name, rows)

    def write(self, name: str, document: Row) -> None:
        """Replaces a JSON file of the study."""
        if self.writes:
            write(self.workdir / name, document)

    def keep(self, name: str, wanted: Callable[[Row], bool], key: Callable[[Row], Any]) -> tuple[list[Row], int]:
        """Leaves in a .jsonl file the last whole row of each key that is `wanted`.

        Returns the rows that are left and how many lines were damaged.
        """
        _, damaged = self.trim(name, wanted, key)
        return lines(self.workdir / name).rows, damaged

    def trim(self, name: str, wanted: Callable[[Row], bool], key: Callable[[Row], Any]) -> tuple[list[Any], int]:
        """Does the same, and returns the keys that are left and how many lines were damaged: for a file of any size."""
        file = self.workdir / name
        last: dict[Any, int] = {}
        damaged, count = 0, 0
        for count, (line, row) in enumerate(each(file), 1):
            if row is None:
                damaged += line.endswith(b"\n")  # else it is cut short
            elif wanted(row):
                last[key(row)] = count
        if self.writes and len(last) < count:
            left = set(last.values())
            kept = (line for number, (line, _) in enumerate(each(file), 1) if number in left)
            _replace(file, b"".join(line.rstrip(b"\n") + b"\n" for line in kept))
        return list(last), damaged


def append(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows to a .jsonl file, one line each, and waits until they are on the disk.

    Raises UserError if they cannot be written; the file is then as it was.
    """
    text = _text(rows)
    if not text:
        return
    try:
        with files.open_to_append(path) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, b"\n" * _is_cut(path) + text.encode())
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise unwritable(path, error) from None


def _write_all(file: Any, content: bytes) -> None:
    """Writes to an unbuffered file, which may take a part at a time."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _is_cut(path: Path) -> bool:
    """Says whether the last line of a file has no end, as a crash leaves it."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"


def lines(path: Path) -> Lines:
    """Returns the rows of a .jsonl file and what is damaged in it, nothing if it is absent."""
    rows, damaged, cut_short = [], 0, False
    for line, row in each(path):
        if row is not None:
            rows.append(row)
        elif line.endswith(b"\n"):
            damaged += 1
        else:
            cut_short = True
    return Lines(rows, damaged, cut_short)


def each(path: Path) -> Iterator[tuple[bytes, Row | None]]:
    """Yields the lines of a .jsonl file one by one, each with its row, None if it is damaged or cut short."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line != b"\n":
                    yield line, _parse(line)


def read(path: Path) -> list[Row]:
    """Returns the rows of a .jsonl file, none if it is absent; a line cut short by a crash is passed over.

    Raises UserError if the file is damaged otherwise.
    """
    return list(stream(path))


def stream(path: Path) -> Iterator[Row]:
    """Yields the same one by one; raises UserError, after the last one, if the file is damaged."""
    damaged = 0
    try:
        for line, row in each(path):
            if row is not None:
                yield row
            else:
                damaged += line.endswith(b"\n")  # else it is cut short
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}), allowed: the file as a study wrote it") from None
    if damaged:
        raise UserError(
            f"{path} holds {damaged} damaged lines, allowed: the file as a study wrote it; "
            "starting the study again drops them and runs what they held"
        )


# Hyperparameters that came when there were studies without them: what a row that does not name them had.
LATER = {"focal_gamma": 0.0, "temperature": 0.05}


def read_trials(workdir: Path) -> list[Row]:
    """Returns the rows of trials.jsonl, the last one of each trial; raises UserError if the file is damaged."""
    rows = read(workdir / "trials.jsonl")
    check_trials(workdir, rows)
    return completed({row["id"]: row for row in rows}.values())


def completed(rows: Iterable[Row]) -> list[Row]:
    """Returns rows of trials.jsonl that have the same hyperparameters: those of LATER that others name too."""
    rows = list(rows)
    names = {name for row in rows for name in row["hparams"] or ()} & LATER.keys()
    told = {name: value for name, value in LATER.items() if name in names}
    return [
        row if names <= (row["hparams"] or told).keys() else row | {"hparams": told | row["hparams"]} for row in rows
    ]


def check_trials(workdir: Path, rows: Iterable[Row]) -> None:
    """Raises UserError for a row of trials.jsonl that no study wrote."""
    for row in rows:
        if not row.keys() >= _TRIAL:
            raise UserError(f"{workdir / 'trials.jsonl'} holds {str(row)[:40]!r}, allowed: rows as a study wrote them")


def read_document(path: Path) -> Row:
    """Returns a JSON file of a study, empty if it is absent; raises UserError if it is damaged."""
    try:
        content = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}), allowed: the file as a study wrote it") from None
    if content is None:
        return {}
    document = _parse(content)
    if document is None:
        raise UserError(f"{path} cannot be read (it is damaged), allowed: the file as a study wrote it, or none")
    return document


def is_whole(path: Path) -> bool:
    """Says whether a JSON file of a study is there and as it was written."""
    return path.exists() and _parse(path.read_bytes()) is not None


def is_unsealed(path: Path) -> bool:
    """Says whether a JSON file is one of a time before checksums and formats."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys().isdisjoint({"crc32", "format"})


def write(path: Path, document: Row) -> None:
    """Replaces a JSON file in one step; raises UserError if it cannot be written, and the file is then as it was."""
    _replace(path, json.dumps(_sealed(document), indent=2) + "\n")


def _replace(path: Path, content: str | bytes) -> None:
    try:
        files.replace(path, content)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: Exception) -> UserError:
    """Returns the error for a file of a study that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
    return UserError(
        f"{path} cannot be written ({reason}), allowed: a disk with space; the same command then continues the study"
    )


def _text(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(_sealed(row)) + "\n" for row in rows)


def _sealed(row: Row) -> Row:
    """Returns a row as JSON holds it, with its checksum."""
    plain = json.loads(json.dumps(_plain(row)))  # as it will be read: keys are texts
    return {**plain, "crc32": _checksum(plain)}


def _parse(line: bytes) -> Row | None:
    """Returns a sealed row or document without its checksum, None if it is damaged."""
    try:
        row = json.loads(line.decode())
        found = row.pop("crc32")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    return row if found == _checksum(row) else None


def _checksum(row: Row) -> str:
    """Returns 8 hex digits: CRC-32 of the row in canonical JSON."""
    return f"{zlib.crc32(_CANONICAL.encode(row).encode()):08x}"


def _plain(value: Any) -> Any:
    """Returns `value` as JSON holds it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
