"""Which leaves train at a rate of their own: how deep each lies, and the factors that the config gives."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from finetune.config import Config
from finetune.errors import UserError
from finetune.member.params import hits, matches, named_parts
from finetune.member.task import Task

_ADAPTERS = "lora/"  # leaves under it lie where the leaf that they adapt does


class Rates(NamedTuple):
    """What makes the learning rates of leaves differ, for paths where it does; the same for all members of a group.

    depths: path -> layers below the output, where some member's layer_decay is below 1. multipliers: path -> factor.
    """

    depths: Mapping[str, int]
    multipliers: Mapping[str, float]


NO_RATES = Rates({}, {})


def make_rates(config: Config, task: Task, shapes: Iterable[str], paths: Sequence[str], layer_decay: bool) -> Rates:
    """Returns the rates of the trained `paths`; `layer_decay`: whether some member's is below 1.

    Raises UserError for a multiplier that is none.
    """
    factors: dict[str, float] = {}
    for pattern, factor in multipliers(config.optimizer.multipliers).items():
        for path in _hit(pattern, config, task, shapes).intersection(paths):
            factors.setdefault(path, factor)
    below = {path: depth for path in paths if (depth := depth_of(path, task)) > 0} if layer_decay else {}
    return Rates(below, {path: factor for path, factor in factors.items() if factor != 1})


def depth_of(path: str, task: Task) -> int:
    """Returns how far a leaf lies below the output: 0 after the blocks, n in the first of n, n + 1 in the stem."""
    place = path.removeprefix(_ADAPTERS)
    for depth, block in enumerate(reversed(task.blocks), start=1):
        if matches(block, place):
            return depth
    return len(task.blocks) + 1 if any(matches(prefix, place) for prefix in task.stem) else 0


def multipliers(texts: Iterable[str]) -> dict[str, float]:
    """Returns `config.optimizer.multipliers`, each PATTERN=FACTOR; raises UserError for one that is no such."""
    found: dict[str, float] = {}
    for text in texts:
        pattern, _, number = (part.strip() for part in text.rpartition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not pattern or not 0 <= factor < math.inf:
            raise UserError(
                f"optimizer.multipliers holds {text!r}, allowed: PATTERN=FACTOR with a factor of 0 or more, "
                "such as block_*/attention=0.5"
            )
        if pattern in found:
            raise UserError(f"optimizer.multipliers names {pattern!r} twice, allowed: each pattern once")
        found[pattern] = factor
    return found


def check(config: Config, task: Task, shapes: Iterable[str], trained: Sequence[Sequence[str]]) -> list[str]:
    """Returns what to tell of the multipliers of a study, where `trained` are the paths of each of its groups.

    Raises UserError for a pattern that hits nothing that trains in any group, or only what earlier ones have hit.
    """
    told, left = [], [set(paths) for paths in trained]
    shapes = set(shapes).union(*left)  # those of adapters are not the model's
    for pattern, factor in multipliers(config.optimizer.multipliers).items():
        hit = _hit(pattern, config, task, shapes)
        found = [hit.intersection(paths) for paths in trained]
        if not any(found):
            raise UserError(
                f"optimizer.multipliers: {pattern!r} hits nothing that trains, allowed: patterns that hit some of "
                f"{', '.join(sorted({path.split('/')[0] for paths in trained for path in paths}))}"
            )
        if not any(part & rest for part, rest in zip(found, left, strict=True)):
            raise UserError(
                f"optimizer.multipliers: {pattern!r} hits only what patterns before it hit, allowed: narrow patterns "
                "first, since the first that hits a leaf counts"
            )
        left = [rest - hit for rest in left]
        if factor == 0:
            told.append(
                f"multiplier 0 keeps {pattern!r} as it is and yet computes its gradients: "
                f'freezing it costs less, with "+!{pattern}" in trainable'
            )
    return told


def _hit(pattern: str, config: Config, task: Task, shapes: Iterable[str]) -> set[str]:
    return hits(pattern, task, shapes, named_parts(config.parts), f"optimizer.multipliers holds {pattern!r}")
