"""Job: what is left to do of a group of trials."""

from typing import Any, NamedTuple

from finetune.member.step import Recipe
from finetune.trials.grid import Trial
from finetune.trunk.choice import Trunk


class Job(NamedTuple):
    """A group with trials that are not done yet, and what becomes of its frozen part."""

    number: int
    trials: list[Trial]
    recipe: Recipe
    trunk: Trunk
    signature: dict[str, Any]
