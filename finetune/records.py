"""The files of a study that hold its results: trials.jsonl and curves.jsonl, append-only, and whole JSON documents."""

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune.errors import UserError

COMPLETE, DIVERGED, STOPPED, FAILED = "complete", "diverged", "stopped", "failed"
_TRIAL = {"id", "hparams", "status", "metrics", "best", "steps", "reason"}  # what every row of trials.jsonl holds
DONE = (COMPLETE, DIVERGED)  # statuses that are results; the others run again


class Recorder:
    """Writes the files of a study; where several processes train it together, only the first one writes."""

    def __init__(self, workdir: Path, writes: bool):
        self.workdir, self.writes = workdir, writes

    def append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to a .jsonl file of the study."""
        if self.writes:
            append(self.workdir / name, rows)

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Replaces a JSON file of the study."""
        if self.writes:
            write(self.workdir / name, document)


def append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends rows to a .jsonl file, one line each, and waits until they are on the disk."""
    lines = "".join(json.dumps(_plain(row)) + "\n" for row in rows)
    if not lines:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * _is_cut(path) + lines)
        file.flush()
        os.fsync(file.fileno())


def _is_cut(path: Path) -> bool:
    """Says whether the last line of a file has no end, as a crash leaves it."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a .jsonl file, none if it is absent; a line cut short by a crash is passed over."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def read_trials(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of trials.jsonl; raises UserError if it is damaged beyond lines that were cut short."""
    file = workdir / "trials.jsonl"
    try:
        rows = read(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}), allowed: the file as a study wrote it, or none") from None
    for row in rows:
        if not isinstance(row, dict) or not row.keys() >= _TRIAL:
            raise UserError(f"{file} holds {str(row)[:40]!r}, allowed: rows as a study wrote them")
    return rows


def read_document(path: Path) -> dict[str, Any]:
    """Returns a JSON file of a study, empty if it is absent; raises UserError if it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}), allowed: the file as a study wrote it, or none") from None


def write(path: Path, document: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(_plain(document), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """Returns `value` as JSON holds it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
