"""A manifest: the size and checksum of every file of a directory, by which a damaged checkpoint is known.

It is written last, so that a directory without one was not finished.
"""

import zlib
from pathlib import Path

from finetune.storage import records

NAME = "manifest.json"
FORMAT = 1
_BLOCK_BYTES = 1 << 22


def write(directory: Path) -> None:
    """Writes the manifest of all files under `directory`; raises UserError if it cannot be written."""
    try:
        files = {name: describe(directory / name) for name in _names(directory)}
    except OSError as error:
        raise records.unwritable(directory, error) from None
    records.write(directory / NAME, {"format": FORMAT, "files": files})


def problem(directory: Path) -> str | None:
    """Returns what is wrong with a directory, in a few words, None if it is as it was written."""
    try:
        document = records.read_document(directory / NAME)
        if not document:
            return "it was not finished"
        if document.get("format") != FORMAT:
            return f"its format is {document.get('format')!r}, not {FORMAT}"
        files, there = document["files"], _names(directory)
        for name in sorted({*files, *there}):
            if name not in there:
                return f"{name} is missing"
            if name not in files or describe(directory / name) != files[name]:
                return f"{name} has changed"
    except (OSError, ValueError):
        return f"{NAME} is damaged"
    return None


def _names(directory: Path) -> list[str]:
    files = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    return sorted(name for name in files if name != NAME)


def describe(file: Path) -> list[int | str]:
    """Returns [bytes, CRC-32] of a file."""
    size, checksum = 0, 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return [size, f"{checksum:08x}"]
