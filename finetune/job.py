"""Job: what is left to do of a group of trials."""

from typing import Any, NamedTuple

from finetune.features import Trunk
from finetune.grid import Trial
from finetune.step import Recipe


class Job(NamedTuple):
    """A group with trials that are not done yet, and what becomes of its frozen part."""

    number: int
    trials: list[Trial]
    recipe: Recipe
    trunk: Trunk
    signature: dict[str, Any]
