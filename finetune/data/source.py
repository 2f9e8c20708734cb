"""Source: what every kind of data is read as, before it is split and encoded."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")


class Examples(NamedTuple):
    """The examples of one split as they were read, and the label of each.

    A class name; for multilabel a tuple of them, or a text that holds them; for regression a number, or a text of one;
    for tokens a list of them, one for each word.
    """

    inputs: Sequence[Any] | np.ndarray
    labels: Sequence[Any]


class Source(NamedTuple):
    """Some or all of SPLITS, read but not encoded.

    kind: what the inputs are: text (str), words (list of str), image (a path, or the bytes of a file), array
        (np.ndarray, all of one shape and dtype).
    order: class names in the order of the source; empty = sorted.
    """

    kind: Literal["text", "words", "image", "array"]
    splits: dict[str, Examples]
    order: tuple[str, ...] = ()


def is_unicode(text: str) -> bool:
    """Says whether a text can be written: names of files and escapes in JSON can hold half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
