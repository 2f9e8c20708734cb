"""Quotes in delimited text: whether one that opens in a row and closes in a later one joins rows that were apart.

A quoted field may go over several lines. Where each of these lines is a whole row by itself, the file can be read in
two ways, and the other one has more rows and other labels.
"""

from collections.abc import Iterator, Sequence, Set

from finetune.data.source import is_number
from finetune.errors import UserError


class Lines:
    """The lines of a stream; `taken` are those since the last row began, and a reader clears them after each row."""

    def __init__(self, stream: Iterator[str]):
        self._stream = stream
        self.taken: list[str] = []

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        if self.taken or line.strip():  # blank lines before a row are none of it
            self.taken.append(line)
        return line


def apart(lines: Sequence[str], delimiter: str, fields: int) -> list[list[str]]:
    """Returns the rows that the lines of one row are without quotes, [] unless each has so many `fields`, 2 or more."""
    if len(lines) < 2 or fields < 2:
        return []
    rows = [line.rstrip("\r\n").split(delimiter) for line in lines if line.strip()]
    return rows if all(len(row) == fields for row in rows) else []


def are_labels(found: Set[str], known: Set[str]) -> bool:
    """Says whether texts look as the labels of a file do: they are some of them, or numbers where all are."""
    return found <= known or (all(map(is_number, found)) and all(map(is_number, known)))


def joined(where: str, last: int, rows: int) -> UserError:
    """Returns the error for a row that may be several; where: file and first line."""
    return UserError(
        f"{where}: a quote opens here and closes in line {last}, which makes one row of {rows}"
        " (a quote that is no more than a character is doubled, in a field that starts and ends with one)"
    )
