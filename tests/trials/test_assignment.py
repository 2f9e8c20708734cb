"""The gate for assignments: whichever way a value comes, one trial has one id, and what is wrong is told in a line."""

import itertools

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from finetune.config import Config
from finetune.config import checked as checked_config
from finetune.errors import UserError
from finetune.study import run
from finetune.trials import assignment
from finetune.trials.grid import asked, make_trials, parse_axes


def ids(axes=None, sweep=({},), **settings):
    """Returns the ids of the trials of axes, of texts as a shell gives them, or of defaults."""
    config = Config()
    for name, value in settings.items():
        setattr(config.hparams, name, value)
    axes = parse_axes(axes, None) if isinstance(axes, list) else axes or {}
    return [trial.id("") for trial in make_trials(checked_config(config), axes, sweep)]


SPELLINGS = {
    "learning_rate": [0.001, 1e-3, "1e-3", np.float32(1e-3), np.float64(1e-3), np.float16(1e-3), np.array(1e-3),
                      jnp.float32(1e-3)],
    "weight_decay": [0, 0.0, -0.0, "0", np.int64(0), np.float32(0)],
    "batch_size": [16, 16.0, "16", np.int32(16), np.uint8(16), np.float32(16), jnp.int32(16)],
}  # fmt: skip

IN_A_CONFIG = {  # of the type that the field has
    "learning_rate": [1e-3, np.float32(1e-3), np.float64(1e-3)],
    "weight_decay": [0, -0.0, np.int64(0), np.float32(0)],
    "batch_size": [16, np.int32(16), np.uint8(16)],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_number_is_one_trial_however_it_is_written(name):
    found = []
    for value in SPELLINGS[name]:
        found += ids({name: [value]}) + ids({}, [{name: value}]) + ids([f"{name}={value!s}"])
    for value in IN_A_CONFIG[name]:
        found += ids(**{name: value})
    assert len(set(found)) == 1
    assert len(asked(Config(), {name: SPELLINGS[name]})) == len(SPELLINGS[name])


def test_a_number_of_single_precision_is_as_it_is_written():
    [trial] = make_trials(Config(), {"learning_rate": np.array([3e-5], np.float32)})
    assert trial.hparams["learning_rate"] == 3e-5
    config = Config()
    config.hparams.learning_rate, config.hparams.epochs = np.float32(3e-5), np.int64(3)
    config.model.name = np.str_("vit")
    found = checked_config(config)
    assert (found.hparams.learning_rate, found.hparams.epochs, found.model.name) == (3e-5, 3, "vit")
    assert {type(found.hparams.learning_rate), type(found.hparams.epochs)} == {float, int}
    assert isinstance(config.hparams.learning_rate, np.float32)  # the user's own stays as it is


@pytest.mark.parametrize(
    "spellings",
    [
        ["head+norm", "norm+head", " head + norm", "norm+head+norm", "head++norm", np.str_("norm+head")],
        ["all+!bias+!norm", "all + ! norm+!bias", "all+!norm+!bias+!norm"],
        ["norm+head>all", "head + norm > all"],
    ],
)
def test_a_selection_is_one_trial_however_it_is_written(spellings):
    parent = [{"trainable": "head+norm"}] if ">" in spellings[0] else []
    found = {ids({"trainable": [spelling]})[0] for spelling in spellings}
    found |= {ids({}, [*parent, {"trainable": spelling}])[-1] for spelling in spellings}
    found |= {ids([f"trainable={spelling}"])[0] for spelling in spellings}
    assert len(found) == 1
    assert len(set(ids({"trainable": spellings}))) == 1


def test_what_a_term_freezes_depends_on_its_place():
    assert len(set(ids({"trainable": ["all+!norm+head", "all+head+!norm"]}))) == 2


def test_axes_of_a_condition_pass_the_gate_too():
    one = ids({"trainable": ["head", "norm+head"], "l2@head + norm": np.array([0, 1])})
    assert one == ids(["trainable=head,head+norm", "l2@norm+head=0.0,1"])
    with pytest.raises(UserError, match="axis 'l2@head\\+norm' is there twice"):
        ids({"trainable": ["head+norm"], "l2@head+norm": [0], "l2@norm+head": [1]})
    with pytest.raises(UserError, match="l2 is -1"):
        ids({"l2@head": [-1]})


def test_arrays_series_ranges_and_generators_are_axes():
    axes = {
        "learning_rate": np.geomspace(1e-3, 1e-1, 3),
        "l2": pd.Series([0.0, 1.0]),
        "seed": range(2),
        "epochs": (number for number in (1, 2)),
        "batch_size": jnp.array([8, 16]),
    }
    trials = asked(Config(), axes)
    values = [tuple(trial.hparams[name] for name in axes) for trial in trials]
    wanted = itertools.product([1e-3, 1e-2, 1e-1], [0.0, 1.0], [0, 1], [1, 2], [8, 16])
    assert values == [pytest.approx(each) for each in wanted]
    assert {type(value) for each in values for value in each} == {float, int}


@pytest.mark.parametrize(
    "axes, line",
    [
        ({"lr": [1e-3]}, "axis is 'lr', allowed: .*batch_size.*weight_decay; did you mean 'learning_rate'"),
        ({"learning_rate": [-1.0]}, "learning_rate is -1.0, allowed: >= 0 and finite"),
        ({"learning_rate": [None]}, "learning_rate is None, allowed: a number"),
        ({"learning_rate": [float("nan")]}, "learning_rate is nan"),
        ({"learning_rate": [np.inf]}, "learning_rate is inf"),
        ({"learning_rate": [True]}, "learning_rate is True, allowed: a number"),
        ({"learning_rate": [np.bool_(True)]}, "learning_rate is .*True"),
        ({"learning_rate": [1j]}, "learning_rate is 1j"),
        ({"learning_rate": [[1e-3]]}, "learning_rate is \\[0.001\\], allowed: a number"),
        ({"learning_rate": np.ones((1, 1))}, "learning_rate is array.*, allowed: a number"),
        ({"learning_rate": 1e-3}, "axis learning_rate is 0.001, allowed: a list"),
        ({"learning_rate": np.float32(1)}, "axis learning_rate is .*1.0.*, allowed: a list"),
        ({"learning_rate": np.array(1.0)}, "axis learning_rate is .*1.*, allowed: a list"),
        ({"learning_rate": "1e-3"}, "axis learning_rate is '1e-3', allowed: a list"),
        ({"learning_rate": {1e-3, 1e-2}}, "axis learning_rate is {.*}, allowed: a list"),
        ({"learning_rate": []}, "axis learning_rate has no values"),
        ({"epochs": [1.5]}, "epochs is 1.5, allowed: whole numbers"),
        ({"dropout": [1.0]}, "dropout is 1.0, allowed: 0 <= value < 1"),
        ({"trainable": "head"}, "axis trainable is 'head', allowed: a list"),
        ({"trainable": [3]}, "trainable is 3, allowed: text"),
        ({"trainable": [" "]}, "axis trainable has an empty value"),
        ({"optimizer.name": ["adam"]}, "optimizer.name is 'adam'.*did you mean 'adamw'"),
        ({"optimizer": ["sgd"]}, "axis is 'optimizer'.*did you mean 'optimizer.name'"),
        ({3: [1]}, "axis is '3'"),
        ([("l2", [1])], "axes are .*, allowed: a dict"),
        ("l2=1", "axes are 'l2=1', allowed: a dict"),
    ],
)
def test_axes_that_are_none(axes, line):
    for call in (lambda: make_trials(Config(), axes), lambda: run.run(Config(), "never", axes)):
        with pytest.raises(UserError, match=line) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config, line",
    [
        ("configs/quickstart.py", "config is 'configs/quickstart.py', allowed: a finetune.Config"),
        (Config(data={"name": "r8"}), "data is {'name': 'r8'}, allowed: a finetune.config.DataConfig"),  # type: ignore[arg-type]
        (Config(hparams=None), "hparams is None, allowed: a finetune.config.HparamsConfig"),  # type: ignore[arg-type]
    ],
)
def test_configs_that_are_none(config, line):
    with pytest.raises(UserError, match=line):
        run.run(config, "never")


def test_other_arguments_that_are_none():
    with pytest.raises(UserError, match="workdir is None, allowed: the path"):
        run.run(Config(), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sweep is 3, allowed: dicts"):
        run.run(Config(), "never", sweep=3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sweep\\(\\) yields 'learning_rate', allowed: a dict for each trial"):
        run.run(Config(), "never", sweep={"learning_rate": 1})  # type: ignore[arg-type]


def test_names_are_those_of_hyperparameters_and_static_choices():
    assert set(assignment.defaults(Config())) == set(assignment.NAMES)
