"""What is printed: no reason for a command to fail, whatever the terminal can show and whoever has stopped reading."""

import os
import sys
from typing import Any, TextIO

from rich import console

_SPELT = str.maketrans({"·": "|", "±": "+-", "−": "-", "×": "x", "½": "1/2", "²": "^2", "…": "..."})


class Unfailing:
    """A stream of text that shows what it can.

    Characters that its encoding lacks are spelt, or a question mark; after an `error` nothing is written any more.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Writes `text` as far as that can be, and returns its length."""
        self._try(lambda: self.stream.write(_shown(text, getattr(self.stream, "encoding", None) or "utf-8")))
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        self._try(self.stream.flush)

    def _try(self, call: Any) -> None:
        if self.error is None:
            try:
                call()
            except (OSError, ValueError) as error:  # its reader has gone, its disk is full, it is closed
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Console(console.Console):
    """A console of rich over a stream that does not fail."""

    @console.Console.file.getter  # type: ignore[attr-defined]
    def file(self) -> Any:
        """The stream."""
        return unfailing(super().file)


def guard() -> None:
    """Arranges that nothing this process prints can fail; called first thing in a command."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file would get its number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = map(unfailing, (sys.stdout, sys.stderr))


def unfailing(stream: Any) -> Any:
    """Returns a stream that does not fail; None, as of a closed one, stays None."""
    return stream if stream is None or isinstance(stream, Unfailing) else Unfailing(stream)


def lost() -> Exception | None:
    """Returns why standard output was not written to its end, None if it was; flushes it."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return getattr(sys.stdout, "error", None)


def exact() -> TextIO:
    """Returns standard output for what must not be changed: it raises what is against it."""
    stream: TextIO = getattr(sys.stdout, "stream", sys.stdout)
    return stream


def _shown(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_SPELT).encode(encoding, "replace").decode(encoding)
    return text
