"""Axes, products and ids of trials."""

import hashlib

import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.trials.grid import digest, make_trials, parse_axes, parse_axis
from finetune.trials.hparams import INTEGERS, NAMES


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("learning_rate=1e-3", ("learning_rate", [0.001])),
        (" learning_rate = 1e-3, 0.01 ", ("learning_rate", [0.001, 0.01])),
        ("batch_size=16,32", ("batch_size", [16, 32])),
        ("learning_rate=log:1e-5:1e-1:5", ("learning_rate", [1e-5, 1e-4, 1e-3, 1e-2, 1e-1])),
        ("learning_rate=log:1e-3:1e-2:3", ("learning_rate", [0.001, 0.00316228, 0.01])),
        ("dropout=lin:0:0.5:3", ("dropout", [0.0, 0.25, 0.5])),
        ("epochs=lin:2:10:3", ("epochs", [2, 6, 10])),
        ("trainable=head,last:1,block_*/norm+head", ("trainable", ["head", "last:1", "block_*/norm+head"])),
        ("optimizer.name=sgd,adamw", ("optimizer.name", ["sgd", "adamw"])),
        ("schedule=constant, cosine", ("schedule", ["constant", "cosine"])),
    ],
)
def test_axes(text: str, wanted: tuple[str, list]) -> None:
    name, values = parse_axis(text)
    assert (name, values) == wanted
    assert [type(value) for value in values] == [type(value) for value in wanted[1]]


@pytest.mark.parametrize(
    "text, line",
    [
        ("", "--grid is '', allowed: NAME=a,b,c"),
        ("learning_rate", "allowed: NAME=a,b,c"),
        ("learning_rate=", "allowed: NAME=a,b,c"),
        ("learning_rates=1", "axis of --grid is 'learning_rates'.*did you mean 'learning_rate'"),
        ("=1", "axis of --grid is ''"),
        ("learning_rate=1e-3,", "learning_rate is '', allowed: a number"),
        ("learning_rate=a", "learning_rate is 'a', allowed: a number"),
        ("learning_rate=-1", "learning_rate is -1"),
        ("learning_rate=nan", "learning_rate is nan"),
        ("batch_size=1.5", "allowed: whole numbers"),
        ("epochs=lin:1:2:3", "epochs is 1.5, allowed: whole numbers"),
        ("dropout=lin:0:1:3", "dropout is 1.0, allowed: 0 <= value < 1"),
        ("learning_rate=log", "allowed: log:LOW:HIGH:N"),
        ("learning_rate=log:1:2", "allowed: log:LOW:HIGH:N"),
        ("learning_rate=log:1:2:3:4", "allowed: log:LOW:HIGH:N"),
        ("learning_rate=log:a:2:3", "allowed: log:LOW:HIGH:N"),
        ("learning_rate=log:0:1:3", "LOW > 0 for log"),
        ("learning_rate=log:1e-1:1e-5:9", "LOW < HIGH"),
        ("learning_rate=lin:0:1:1", "N >= 2"),
        ("learning_rate=lin:0:inf:3", "allowed: lin:LOW:HIGH:N"),
        ("learning_rate=lin:0:1:1000000000", "at most 100000"),
        ("schedule=cosin", "schedule is 'cosin'.*did you mean 'cosine'"),
        ("optimizer.name=adam", "optimizer.name is 'adam'.*did you mean 'adamw'"),
        ("trainable=head,", "axis trainable has an empty value"),
    ],
)
def test_axes_that_make_no_sense(text: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        parse_axis(text)


def test_axes_and_seeds() -> None:
    assert parse_axes(["dropout=0,0.1"], 3) == {"dropout": [0.0, 0.1], "seed": [0, 1, 2]}
    assert parse_axes([], None) == {}


@pytest.mark.parametrize(
    "texts, seeds, line",
    [
        (["l1=0", "l1=1"], None, "--grid names 'l1' twice"),
        ([], 0, "--seeds is 0, allowed: 1 or more"),
        (["seed=1,2"], 3, "both --seeds and --grid=seed"),
    ],
)
def test_axes_that_exclude_each_other(texts: list[str], seeds: int | None, line: str) -> None:
    with pytest.raises(UserError, match=line):
        parse_axes(texts, seeds)


def test_the_product_of_all_axes_over_the_defaults() -> None:
    axes = {"learning_rate": [0.1, 0.2], "trainable": ["head", "all"], "seed": [0, 1, 2]}
    trials = make_trials(Config(), axes)
    settings = [(t.hparams["learning_rate"], t.choices["trainable"], t.hparams["seed"]) for t in trials]
    assert settings == [(rate, part, seed) for rate in (0.1, 0.2) for part in ("head", "all") for seed in (0, 1, 2)]
    assert {trial.hparams["batch_size"] for trial in trials} == {32}
    assert {trial.choices["schedule"] for trial in trials} == {"cosine"}
    assert all(set(trial.hparams) == set(NAMES) for trial in trials)


def test_the_same_trial_is_made_once() -> None:
    axes = {"learning_rate": parse_axis("learning_rate=1e-3,0.001,0.0010")[1], "batch_size": [32, 32]}
    assert len(make_trials(Config(), axes)) == 1


def test_a_sweep_pairs_axes_and_is_crossed_with_the_others() -> None:
    sweep = [
        {"optimizer.name": "sgd", "learning_rate": 0.1, "momentum": 0.5},
        {"optimizer.name": "adamw", "learning_rate": 1e-3},
    ]
    trials = make_trials(Config(), {"seed": [0, 1]}, sweep)
    assert [
        (t.choices["optimizer.name"], t.hparams["learning_rate"], t.hparams["momentum"], t.hparams["seed"])
        for t in trials
    ] == [("sgd", 0.1, 0.5, 0), ("sgd", 0.1, 0.5, 1), ("adamw", 0.001, 0.9, 0), ("adamw", 0.001, 0.9, 1)]


@pytest.mark.parametrize(
    "sweep, line",
    [
        ([], "the sweep has no trials"),
        ([1], "sweep\\(\\) yields 1, allowed: a dict"),
        ([{"lr": 1}], "name in sweep\\(\\) is 'lr'"),
        ([{"learning_rate": "x"}], "learning_rate is 'x', allowed: a number"),
        ([{"learning_rate": -1}], "learning_rate is -1"),
        ([{"schedule": "step"}], "schedule is 'step'"),
        ([{"trainable": ""}], "axis trainable has an empty value"),
    ],
)
def test_sweeps_that_make_no_sense(sweep: list, line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_trials(Config(), {}, sweep)


def test_an_axis_may_hold_for_one_choice_alone() -> None:
    texts = ["learning_rate=1,2", "trainable=all,head,bias", "learning_rate@head=log:10:1000:3", "l2@sgd=5"]
    axes = parse_axes(texts, seeds=2)
    assert axes["learning_rate@head"] == [10, 100, 1000]
    trials = make_trials(Config(), axes, [{"optimizer.name": "adamw"}, {"optimizer.name": "sgd"}])
    found = {(t.choices["optimizer.name"], t.choices["trainable"], t.hparams["learning_rate"], t.hparams["l2"],
              t.hparams["seed"]) for t in trials}  # fmt: skip
    wanted = {
        (name, part, rate, 5 if name == "sgd" else 0, seed)
        for name in ("adamw", "sgd")
        for part, rates in (("all", (1, 2)), ("head", (10, 100, 1000)), ("bias", (1, 2)))
        for rate in rates
        for seed in (0, 1)
    }
    assert found == wanted
    assert len(trials) == len(wanted)


@pytest.mark.parametrize(
    "texts, line",
    [
        (
            ["trainable=head,all", "learning_rate@heads=1"],
            "the choice after @ is 'heads', allowed: .*; did you mean 'hea",
        ),
        (["learning_rate@all=1"], "the choice after @ is 'all', allowed: adamw, cosine, head"),
        (["learning_rate@=1"], "allowed before the =: NAME, or HYPERPARAMETER@CHOICE"),
        (["optimizer.name@head=sgd"], "allowed before the ="),
        (["rate@head=1"], "axis of --grid is 'rate'"),
        (["learning_rate@head=-1"], "learning_rate is -1"),
        (["learning_rate@head=1", "learning_rate@adamw=1"], "two axes learning_rate@... hold for the same trials"),
        (["learning_rate@head=1", "learning_rate@head=2"], "names 'learning_rate@head' twice"),
    ],
)
def test_conditions_that_make_no_sense(texts: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_trials(Config(), parse_axes(texts, None))


def test_an_id_is_the_same_on_every_machine() -> None:
    # The sha256 of canonical JSON: keys sorted, separators ", " and ": ", ASCII.
    text = (
        '["data and model", {"batch_size": 32, "beta1": 0.9, "beta2": 0.999, "clip_norm": 0.0, "data_seed": 0, '
        '"dropout": 0.0, "epochs": 10, "l1": 0.0, "l2": 0.0, "l2_sp": 0.0, "label_smoothing": 0.0, '
        '"layer_decay": 1.0, "learning_rate": 0.001, "lora_alpha": 16.0, "lora_rank": 8, "lora_ratio": 1.0, '
        '"momentum": 0.9, "seed": 0, "warmup_fraction": 0.1, "weight_decay": 0.0}, '
        '{"optimizer.name": "adamw", "schedule": "cosine", "trainable": "head"}]'
    )
    [trial] = make_trials(Config(), {})
    assert trial.id("data and model") == hashlib.sha256(text.encode()).hexdigest()[:12] == "46edf60d7226"


def test_an_id_depends_on_everything() -> None:
    axes: dict = {name: [3] if name in INTEGERS else [0.5] for name in NAMES}
    axes |= {"trainable": ["all"], "optimizer.name": ["sgd"], "schedule": ["linear"]}
    [trial] = make_trials(Config(), {})
    ids = {trial.id("a"), trial.id("b")}
    for name, values in axes.items():
        [other] = make_trials(Config(), {name: values})
        ids.add(other.id("a"))
    assert len(ids) == 2 + len(axes)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_an_axis_of_adapters_needs_adapters() -> None:
    with pytest.raises(UserError, match="axis lora_rank has no effect, since trainable is 'head', allowed: with a"):
        make_trials(Config(), {"lora_rank": [1, 4]})
    assert len(make_trials(Config(trainable="lora+norm"), {"lora_rank": [1, 4]})) == 2
