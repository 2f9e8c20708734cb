"""conclusion.json: the answer of a study as it was printed last, and what the files that it was drawn from were then.

While they are the same, starting a finished study again has nothing to read and nothing to draw.
"""

from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.storage import manifest, records

_NAME = "conclusion.json"
_FILES = ("config.json", "plan.json", "trials.jsonl", "curves.jsonl", "report.html")


def write(workdir: Path, answer: list[str]) -> None:
    """Keeps the lines of an answer; raises UserError if they cannot be written."""
    records.write(workdir / _NAME, {"answer": answer, "files": _described(workdir)})


def answer(workdir: Path) -> list[str] | None:
    """Returns the lines of the answer, None where a file has changed since."""
    found = _read(workdir)
    return found["answer"] if found and found["files"] == _described(workdir) else None


def is_unchanged(workdir: Path, name: str) -> bool:
    """Says whether a file is whole and as it was when the answer was written."""
    try:
        return bool(_read(workdir).get("files", {})[name] == manifest.describe(workdir / name))
    except (KeyError, OSError):
        return False


def _described(workdir: Path) -> dict[str, Any]:
    return {name: manifest.describe(workdir / name) for name in _FILES if (workdir / name).exists()}


def _read(workdir: Path) -> dict[str, Any]:
    try:
        return records.read_document(workdir / _NAME)
    except UserError:  # damaged: the answer is drawn again
        return {}
