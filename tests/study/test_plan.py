"""Groups, chunks, and the course of a population that shrinks, against counts by hand."""

import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.member.params import abstract
from finetune.population.parallel import OneDevice
from finetune.study import plan
from finetune.trials.grid import Trial, make_trials
from tests.helpers.tasks import mlp, row

CHOICES = {"trainable": "head", "optimizer.name": "adamw", "schedule": "cosine"}


def trials(**axes):
    return make_trials(Config(), axes)


def test_only_what_changes_the_program_splits_groups():
    scalars = trials(learning_rate=[1e-3, 1e-2], batch_size=[16, 32], epochs=[1, 2], seed=[0, 1], dropout=[0.0, 0.1])
    assert [len(group) for group in plan.group_trials(scalars)] == [32]
    static = trials(**{"trainable": ["head", "all"], "optimizer.name": ["sgd", "lion"], "seed": [0, 1]})
    assert [len(group) for group in plan.group_trials(static)] == [2, 2, 2, 2]


def test_recipe_of_a_group():
    task = mlp()
    group = trials(batch_size=[16, 24, 40], dropout=[0.0, 0.1])
    recipe = plan.make_recipe(Config(), task, abstract(task), group, examples=100)
    assert (recipe.micro_batch, recipe.accumulates, recipe.dropout) == (8, True, True)
    single = plan.make_recipe(Config(), task, abstract(task), trials(batch_size=[16]), examples=100)
    assert (single.micro_batch, single.accumulates, single.dropout) == (16, False, False)
    with pytest.raises(UserError, match="batch_size is 40, allowed: at most the 39 training examples"):
        plan.make_recipe(Config(), task, abstract(task), group, examples=39)


def test_chunks_have_one_size_and_one_order():
    chunks, size = plan.chunks_of(trials(seed=list(range(7)), data_seed=[0, 1]), most=3)
    assert size == 3
    assert [len(chunk) for chunk in chunks] == [3, 3, 1, 3, 3, 1]
    assert all(len({trial.hparams["data_seed"] for trial in chunk}) == 1 for chunk in chunks)
    chunks, size = plan.chunks_of(trials(seed=list(range(8))), most=5)  # 4 + 4 rather than 5 + 3
    assert ([len(chunk) for chunk in chunks], size) == ([4, 4], 4)


def test_like_horizons_share_a_chunk():
    chunks, _ = plan.chunks_of(trials(epochs=[1, 9], seed=[0, 1, 2]), most=3)
    assert [{trial.hparams["epochs"] for trial in chunk} for chunk in chunks] == [{1}, {9}]


def test_population_halves_as_members_finish():
    # 12 members: 4 stop at epoch 2 (8 of 12 left: more than half, all stay), 4 at 5 (4 left), 4 at 10.
    horizons = [2] * 4 + [5] * 4 + [10] * 4
    course = list(plan.stages(horizons, 12, OneDevice()))
    assert course == [(12, 2, False), (12, 3, True), (4, 5, True)]


def test_survivors_are_rounded_up_to_a_power_of_two():
    assert list(plan.stages([1] * 7 + [3] * 5, 12, OneDevice())) == [(12, 1, True), (8, 2, True)]


def test_signature_tells_devices_and_choices():
    group = [Trial(row(), CHOICES)]
    task = mlp()
    recipe = plan.make_recipe(Config(), task, abstract(task), group, examples=10)
    signature = plan.signature("abc", recipe, group)
    assert signature == {
        "study": "abc",
        **CHOICES,
        "micro_batch": 4,
        "accumulates": False,
        "dropout": False,
        "devices": 8,
    }
