"""A group of trials made ready to train as a study does it, up to the point where it would start."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune.config import Config
from finetune.member.params import Leaves, partition
from finetune.member.step import Recipe, Shared, init_member
from finetune.population import measure
from finetune.population.group import Group, Splits, with_features
from finetune.study import plan
from finetune.study.problem import Subject
from finetune.trials import hparams
from finetune.trials.grid import Trial
from finetune.trials.hparams import Hparams
from finetune.trunk.choice import HostSplit, Room, Trunk, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import feature_store

ROOM = Room(device=10**12, host=10**12)  # bytes for features: what fits is not what is measured here


class Prepared(NamedTuple):
    """Trials of one group: what becomes of the frozen part, its pass over the data, and the programs of the rest."""

    recipe: Recipe  # of the whole program, not cut
    trunk: Trunk
    trunk_pass: Pass
    measured: Group
    compile_seconds: float  # until that is chosen: candidates are compiled and timed


def prepare(
    config: Config, subject: Subject, splits: Sequence[HostSplit], trials: Sequence[Trial], real: bool
) -> Prepared:
    """Returns the group of `trials` compiled in the way that `config` says or a measurement chooses.

    splits: train, validation and test. real: whether features are computed, else they are random numbers.
    """
    recipe = plan.make_recipe(config, subject.task, subject.shapes, trials, len(splits[0]["label"]))
    recipe = recipe._replace(metric=subject.metric)
    trunk = choose_trunk(config.trunk, recipe, subject.shapes, splits, trials, ROOM)
    trunk_pass = Pass([trunk], subject.base, splits, config.evaluation.batch_size, feature_store(config.trunk))
    features = trunk_pass.run(lambda: None) if real else _random(trunk_pass.imagined())
    trained, frozen = partition(subject.base, frozenset(recipe.paths))
    pretrained = {path: leaf for path, leaf in trained.items() if path in subject.pretrained}
    named = {str(number): trial for number, trial in enumerate(trials)}
    trained_bytes, eval_batch = sum(leaf.nbytes for leaf in trained.values()), config.evaluation.batch_size
    group = Group(named, recipe, trunk, Shared(frozen, pretrained), Splits(*splits), eval_batch, trained_bytes)
    started = time.monotonic()
    measured = measure.choose(config.execution, with_features(group, features), None)
    return Prepared(recipe, trunk, trunk_pass, measured, time.monotonic() - started)


def _random(features: Sequence[HostSplit]) -> list[HostSplit]:
    random = np.random.default_rng(0)
    return [
        {name: random.normal(size=array.shape).astype(array.dtype) for name, array in split.items()}
        for split in features
    ]


def members(measured: Group, trials: Sequence[Trial]) -> Any:
    """Returns the members of `trials` before their first update."""
    stacked = hparams.stack([trial.hparams for trial in trials], measured.execution.size)
    return measured.programs.init(measured.shared, stacked)


def start_of(recipe: Recipe, subject: Subject) -> Callable[[Trial], Leaves]:
    """Returns the function that gives the leaves with which a trial starts to train."""
    pretrained = {path: subject.base[path] for path in recipe.paths if path in subject.pretrained}
    draw = jax.jit(lambda scalars: init_member(recipe, Shared({}, pretrained), scalars).params)
    return lambda trial: draw(Hparams(*(values[0] for values in hparams.stack([trial.hparams], 1))))


def first(splits: Sequence[HostSplit], *examples: int) -> list[HostSplit]:
    """Returns so many examples of each split."""
    return [
        {name: array[:count] for name, array in split.items()} for split, count in zip(splits, examples, strict=True)
    ]
