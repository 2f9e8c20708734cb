"""Runs that failed: those that diverged, and those that collapsed far below the other runs of their setting."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from finetune.analysis.statistics.correction import holm
from finetune.analysis.statistics.screening import screen
from finetune.analysis.table.axis import Axis

_GAP = (
    2.5  # times as far below the good runs of their setting as any other run, from which runs are a mode of their own
)
_FAR = 6.0  # deviations of the other runs, at least
_LEAST_RUNS, _LEAST_SETTINGS = 3, 2  # of collapsed runs: fewer may be outliers
_MOST = 0.4  # share of all runs that may have collapsed
_UPPER = 0.25
_LEAST_REPEATS = 3  # of a setting whose runs can be told apart
_DRAWS = 999
_LEVEL = 0.01  # of a false alarm: it stands beside the test of results, which has 0.05
_COMMON = 5  # failures from which they may be common
_WIDESPREAD = 0.15  # share of settings from which failures that fall anywhere are no setting's own


class Failures(NamedTuple):
    """lost: bool [settings, seeds], runs that diverged or collapsed; collapsed: those of them that did the latter.

    depends: names of what decides how often runs fail, such as an axis, beyond chance. anywhere: whether failures are
    common and nothing decides where they fall, so that no setting is to blame for its own.
    """

    lost: np.ndarray
    collapsed: np.ndarray
    depends: tuple[str, ...]
    anywhere: bool

    @property
    def of_setting(self) -> np.ndarray:
        """The number of lost runs of each setting, int [settings]."""
        return self.lost.sum(1)


def failures(
    utility: np.ndarray, diverged: np.ndarray, axes: Sequence[Axis], values: Mapping[str, np.ndarray]
) -> Failures:
    """Returns which runs failed.

    utility: [settings, seeds], NaN without a result; diverged: bool, the same shape; values: of each axis, [settings].
    """
    collapsed = collapses(utility)
    lost, ran = collapsed | diverged, np.isfinite(utility) | diverged
    depends = _depends(lost, ran, axes, values) if lost.any() else ()
    common = lost.sum() >= _COMMON and lost.any(1).mean() >= _WIDESPREAD
    return Failures(lost, collapsed, depends, bool(common and not depends))


def collapses(utility: np.ndarray) -> np.ndarray:
    """Returns which runs are of a low mode of their own, bool [settings, seeds].

    Seen are the distances below the upper quartile of each setting with 3 runs or more. There is a low mode if a gap
    parts them: nothing between the others and 2.5 times as far; a few runs of several settings beyond; and most runs of
    these settings on the near side, which tells failing runs from settings that are noisy.
    """
    none = np.zeros(utility.shape, bool)
    known = np.isfinite(utility)
    enough = known.sum(1) >= _LEAST_REPEATS
    if enough.sum() < _LEAST_SETTINGS:
        return none
    ordered = -np.sort(-np.where(known, utility, -np.inf), axis=1)
    upper = np.ceil(known.sum(1) * _UPPER).astype(int)  # the best of 3 or 4, the second of 5 to 8
    below = np.take_along_axis(ordered, np.maximum(upper - 1, 0)[:, None], axis=1) - utility
    seen = known & enough[:, None] & (below > 0)
    distances = np.sort(below[seen])
    if len(distances) < 2 * _LEAST_RUNS:
        return none
    near, far = distances[:-1], distances[1:]
    count = len(distances) - 1 - np.arange(len(near))  # runs beyond each gap
    spread = np.median(distances)
    wide = (far >= _GAP * near) & (far >= _FAR * spread) & (count >= _LEAST_RUNS) & (count <= _MOST * known.sum())
    for place in np.flatnonzero(wide)[::-1]:
        beyond = seen & (below >= far[place])
        touched = beyond.any(1)
        others = (seen & ~beyond)[touched].sum()
        if touched.sum() >= _LEAST_SETTINGS and others >= beyond.sum():
            return beyond
    return none


def _depends(
    lost: np.ndarray, ran: np.ndarray, axes: Sequence[Axis], values: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """Returns the axes on which failures gather by more than chance, or `setting` if it is one of these alone."""
    setting = np.repeat(np.arange(len(ran)), ran.sum(1))
    failed = lost[ran].astype(float)
    chances = screen(axes, {name: each[setting] for name, each in values.items()}, -failed)
    chances["setting"] = _of_settings(setting, failed)
    fallen = holm(np.array([*chances.values()]), _LEVEL)
    found = tuple(name for name, falls in zip(chances, fallen, strict=True) if falls)
    return tuple(name for name in found if name != "setting") or found


def _of_settings(setting: np.ndarray, failed: np.ndarray) -> float:
    """Returns the chance that failures gather as much in settings, by permutations of runs."""
    drawn = np.random.default_rng(0).permuted(np.tile(failed, (_DRAWS, 1)), axis=1)
    member = (setting[:, None] == np.arange(setting.max() + 1)[None]).astype(float)
    runs = np.maximum(member.sum(0), 1)
    observed, by_chance = (((each @ member) ** 2 / runs).sum(-1) for each in (failed, drawn))
    return float((1 + (by_chance >= observed - 1e-9).sum()) / (1 + _DRAWS))
