"""Files in a directory of ours: replaced in one step, and never written through a link that lies in their place."""

import contextlib
import os
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from finetune.errors import UserError

_BLOCK_BYTES = 1 << 20


def expanded(path: str) -> Path:
    """Returns a path that a user gave, with `~` spelt out; raises UserError where that home directory is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path!r} begins with a home directory that is not known, allowed: a path without ~") from None


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file in one step and waits until it is on the disk; raises OSError, and the file is then as it was.

    A link called `path` is replaced, what it points to is not touched.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)  # what a crash has left, or a link
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def open_to_append(path: Path) -> FileIO:
    """Returns a file opened to read and append to, without a buffer; raises OSError, for a link too."""
    return open(path, "ab+", buffering=0, opener=_open_no_link)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def is_own(path: Path) -> bool:
    """Says whether a path is free or a plain file, as one of ours is, rather than a link, a directory or a device."""
    return not os.path.lexists(path) or (path.is_file() and not path.is_symlink())


def allocate(file: BinaryIO, size_bytes: int) -> None:
    """Takes all room of a new file, so that a full disk shows here and not while it is filled; raises OSError."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size_bytes)
        return
    for start in range(0, size_bytes, _BLOCK_BYTES):
        file.write(bytes(min(_BLOCK_BYTES, size_bytes - start)))
