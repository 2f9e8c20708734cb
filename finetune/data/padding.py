"""Where the arrays of a split are padded: token ids, as text.encode gives them, at the end of every text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# array [N, ..., T] -> array [N, ...] of how many of the T positions are filled
_PADDED = {"input_ids": "length", "token_type_ids": "length"}


def padded(split: Mapping[str, Any]) -> list[str]:
    """Returns the names of the arrays that are padded, none for other data than texts."""
    return [name for name, length in _PADDED.items() if name in split and length in split]


def filled(split: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns how many positions each example of a split with padded arrays fills, int [N]: its longest text."""
    return np.max(
        [split[_PADDED[name]].reshape(len(split["length"]), -1).max(axis=1) for name in padded(split)], axis=0
    )


def whole(split: Mapping[str, np.ndarray]) -> int:
    """Returns how many positions the padded arrays of a split have, 1 if there are none."""
    return max((split[name].shape[-1] for name in padded(split)), default=1)


def cut(split: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """Returns a split whose padded arrays end after so many positions."""
    names = padded(split)
    return {name: array[..., :positions] if name in names else array for name, array in split.items()}
