"""To which lengths the examples of a pass are cut, so that less of it is spent on padding.

Each length is a program to compile, so there are few, and each has to save more than its compilation costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_STEP = 8  # lengths are multiples of it
_MOST = 4  # lengths in all


class Part(NamedTuple):
    """Examples that one program computes, batch after batch."""

    examples: np.ndarray  # places in the split, int [n]
    positions: int  # what their padded arrays are cut to


def choose(filled: np.ndarray, whole: int, flops: float, compile_flops: float) -> tuple[int, ...]:
    """Returns the lengths that pay, ascending; the last one is `whole`.

    filled: positions that each example fills, int [N]. flops: of one example at the whole length, taken to be in
    proportion to it, which is less than attention saves. compile_flops: what a machine computes while it compiles.
    """
    chosen: tuple[int, ...] = (whole,)
    while len(chosen) < _MOST:
        candidates = [tuple(sorted({*chosen, length})) for length in range(_STEP, whole, _STEP)]
        best = min(candidates, key=lambda each: _spent(filled, each), default=chosen)
        if (_spent(filled, chosen) - _spent(filled, best)) / whole * flops <= compile_flops:
            break
        chosen = best
    return chosen


def _spent(filled: np.ndarray, lengths: Sequence[int]) -> int:
    """Returns the positions that are computed if each example is cut to the smallest of `lengths` that holds it."""
    return int(np.asarray(lengths)[np.searchsorted(lengths, filled)].sum())


def parts(filled: np.ndarray, lengths: Sequence[int], batch_size: int) -> list[Part]:
    """Returns the examples by their length, the longest first.

    Those that would leave a batch unfilled move to the next length, so that cutting never makes more batches.
    """
    found, waiting = [], np.zeros(0, np.int64)
    fits = np.searchsorted(lengths, filled)
    for place, length in enumerate(lengths):
        examples = np.concatenate([waiting, np.flatnonzero(fits == place)])
        full = len(examples) if length == lengths[-1] else len(examples) // batch_size * batch_size
        here, waiting = np.sort(examples[:full]), examples[full:]
        if len(here):
            found.append(Part(here, length))
    return found[::-1]
