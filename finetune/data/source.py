"""Source: what every kind of data is read as, before it is split and encoded."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
UNLABELLED = "contrastive"  # the kind of task whose examples have no labels
_SPELLINGS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
_WITHHELD = ("-1", "-1.0")  # what GLUE and TFDS put where the labels of a split are kept back
_NOT_SCORED = "it is not scored, and finetune.predict reads it; test examples are split off train instead"


class Examples(NamedTuple):
    """The examples of one split as they were read, and the label of each.

    A class name; for multilabel a tuple of them, or a text that holds them; for regression a number, or a text of one;
    for tokens a list of them, one for each word.
    """

    inputs: Sequence[Any] | np.ndarray
    labels: Sequence[Any]


class Source(NamedTuple):
    """Some or all of SPLITS, read but not encoded.

    kind: what the inputs are: text (str), pair (two of them or more, a tuple), words (list of str), image (a path, or
        the bytes of a file), array (np.ndarray, all of one shape and dtype).
    order: class names in the order of the source; empty = sorted.
    notes: what the user is told of how the source was read, a line each.
    """

    kind: Literal["text", "pair", "words", "image", "array"]
    splits: dict[str, Examples]
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_of(name: str) -> str:
    """Returns the one of SPLITS that a name stands for, whatever its case: `validation` for Dev; else the name."""
    lower = name.lower()
    found = _SPELLINGS.get(lower, lower)
    return found if found in SPLITS else name


def unlabelled(where: object) -> str:
    """Returns what is told of a test split that has no labels."""
    return f"{where} has no labels: {_NOT_SCORED}"


def labelled(source: Source) -> Source:
    """Returns `source` without the splits whose labels are withheld: all are -1, and those of train are others."""
    kept, notes = dict(source.splits), list(source.notes)
    train = set(map(str, source.splits["train"].labels)) if "train" in source.splits else set()
    for split, examples in source.splits.items():
        withheld = len(examples.labels) > 0 and all(str(label) in _WITHHELD for label in examples.labels)
        if withheld and (split == "train" or train.isdisjoint(_WITHHELD)):
            del kept[split]
            notes.append(f"split {split} has the label -1 in every row, which stands for none: it is not used")
    return source._replace(splits=kept, notes=tuple(notes))


def is_unicode(text: str) -> bool:
    """Says whether a text can be written: names of files and escapes in JSON can hold half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(text: str) -> bool:
    """Says whether a text is a number, nan and infinity among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True
