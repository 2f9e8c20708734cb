"""Values of `trainable` that are chains: how they are taken apart, and what may follow what."""

import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.member import params
from finetune.study.plan import group_trials
from finetune.trials import chain
from finetune.trials.grid import make_trials, parse_axes
from tests.helpers import tasks


def test_a_chain_is_taken_apart() -> None:
    assert chain.stages("head > last:1>all") == ["head", "last:1", "all"]
    assert [chain.shorter(each) for each in ("head>last:1>all", "head > all", "all")] == ["head>last:1", "head", ""]
    assert chain.with_shorter(["all", "head>bias+head>all"]) == ["all", "head", "head>bias+head", "head>bias+head>all"]


def test_one_chain_has_one_spelling() -> None:
    trials = make_trials(Config(trainable="head >all"), {}) + make_trials(
        Config(), parse_axes(["trainable=head> all"], None)
    )
    assert {trial.choices["trainable"] for trial in trials} == {"head>all"}
    assert len({trial.id("") for trial in trials}) == 1


def test_what_trains_is_what_the_last_stage_says() -> None:
    task = tasks.mlp()
    shapes = params.abstract(task)
    head = {"head/kernel", "head/bias"}
    block = {"block_0/kernel", "block_0/bias"}
    assert params.stage_paths("head", task, shapes) == head
    assert params.stage_paths("head>last:1", task, shapes) == head | block
    assert params.stage_paths("head>last:1>all", task, shapes) == shapes.keys()


@pytest.mark.parametrize(
    "spec, said",
    [
        ("all>head", "'all' trains 'block_0/bias' and 'head' does not"),
        ("head>bias>last:1", "'bias' trains 'stem/bias' and 'last:1' does not"),
        ("head>", "which has an empty stage"),
        (">all", "which has an empty stage"),
        ("head>block_7", "'block_7' hits no parameter"),
    ],
)
def test_a_stage_must_train_all_that_the_one_before_trained(spec: str, said: str) -> None:
    task = tasks.mlp()
    with pytest.raises(UserError, match=said):
        params.stage_paths(spec, task, params.abstract(task))


def test_groups_come_after_those_that_they_start_from() -> None:
    trials = make_trials(Config(), {"trainable": ["head>last:1>all", "head>last:1", "all", "head"]})
    groups = [group[0].choices["trainable"] for group in group_trials(trials)]
    assert groups == ["all", "head", "head>last:1", "head>last:1>all"]
