"""Weights of classes: what the loss of their examples is multiplied by, so that rare ones count as much as others."""

import math
from collections.abc import Sequence

import numpy as np

from finetune.errors import UserError, one_of

BALANCED = "balanced"


def weights(given: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Returns the weight of each class, float64 [C], as `given` says for training `labels` [N].

    given: BALANCED alone, examples / (classes · examples of the class), as scikit-learn has it, so that the mean over
    all examples is 1; or CLASS=WEIGHT for some classes, 1 for the others. Raises UserError for anything else.
    """
    if tuple(given) == (BALANCED,):
        return len(labels) / (len(classes) * np.bincount(labels, minlength=len(classes)))
    found, named = dict.fromkeys(classes, 1.0), set()
    for each in given:
        name, equals, value = each.rpartition("=")
        if not equals:
            raise UserError(f"loss.class_weights holds {each!r}, allowed: {BALANCED} alone, or CLASS=WEIGHT")
        if name not in found:
            raise one_of("class in loss.class_weights", name, classes)
        if name in named:
            raise UserError(f"loss.class_weights holds {each!r}, allowed: {name!r} once, it is named before")
        named.add(name)
        found[name] = _weight(each, value)
    return np.array([*found.values()])


def _weight(given: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"loss.class_weights holds {given!r}, allowed after the =: a number above 0")
    return number
