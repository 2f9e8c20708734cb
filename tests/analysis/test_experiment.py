"""The command of the next experiment, where ranges hold for one choice alone."""

import itertools
import shlex

import pandas as pd
import pytest

from finetune.analysis import experiment
from finetune.analysis.evidence import weigh
from finetune.analysis.table.trials import Trials, from_frame

RATES = {"head": (0.01, 0.1, 1.0), "all": (1e-5, 1e-4, 1e-3)}
GRID = {"trainable": "head,all", "weight_decay": "0,0.1", "learning_rate@head": "0.01,0.1,1", "learning_rate@all": "x"}


@pytest.fixture(scope="module")
def trials() -> Trials:
    rows = [
        {"trainable": arm, "learning_rate": rate, "weight_decay": decay, "seed": seed, "score": rate}
        for arm in RATES
        for rate, decay, seed in itertools.product(RATES[arm], (0.0, 0.1), range(2))
    ]
    command = ["/x/finetune/__main__.py", "--config=c.py", *(f"--grid={name}={text}" for name, text in GRID.items())]
    names = ["trainable", "learning_rate", "weight_decay"]
    return from_frame(
        pd.DataFrame(rows), "score", False, hyperparameters=names, provenance={"command": [*command, "--seeds=2"]}
    )


def flags(trials: Trials, grid: dict) -> dict[str, str]:
    """Returns the axes that a command names."""
    words = shlex.split(experiment.command(trials, grid))
    return dict(word.removeprefix("--grid=").split("=") for word in words if word.startswith("--grid="))


@pytest.mark.parametrize(
    "grid, wanted",
    [
        ({"weight_decay": [0.2]}, GRID | {"weight_decay": "0.2"}),
        ({"learning_rate@all": [1e-2]}, GRID | {"learning_rate@all": "0.01"}),
        ({"learning_rate": [1e-2]}, {"trainable": "head,all", "weight_decay": "0,0.1", "learning_rate": "0.01"}),
        (
            {"trainable": ["all"]},
            {"trainable": "all", "weight_decay": "0,0.1", "learning_rate@all": "x"},
        ),
        (
            {"trainable": ["all"], "learning_rate": [1e-2]},
            {"trainable": "all", "weight_decay": "0,0.1", "learning_rate": "0.01"},
        ),
    ],
)
def test_axes_of_before_that_no_longer_hold_are_dropped(trials: Trials, grid: dict, wanted: dict[str, str]) -> None:
    assert flags(trials, grid) == wanted


def test_the_command_is_made_of_what_config_json_keeps(trials: Trials) -> None:
    started_by = {
        "program": ["finetune", "run"],
        "flags": ["--config=c"],
        "grid": {"dropout": "0,0.1"},
        "seeds": "2",
    }
    kept = trials._replace(provenance={"command": ["search.py"], "started_by": started_by})
    wanted = "finetune run --config=c --grid=dropout=0,0.1 --grid=weight_decay=0.2 --seeds=2"
    assert experiment.command(kept, {"weight_decay": [0.2]}) == wanted
    from_python = trials._replace(provenance=trials.provenance | {"started_by": None})
    assert experiment.command(from_python, {"weight_decay": [0.2]}) == "weight_decay = 0.2"


def test_settings_of_several_choices_make_a_grid_with_a_range_for_each(trials: Trials) -> None:
    one = {"trainable": "all", "learning_rate": 1e-4, "weight_decay": 0.0}
    other = {"trainable": "head", "learning_rate": 0.1, "weight_decay": 0.0}
    assert experiment.spanned(weigh(trials), [one]) == {
        "trainable": ["all"], "learning_rate": [1e-4], "weight_decay": [0.0]
    }  # fmt: skip
    assert experiment.grid_of(weigh(trials), [one, other, one | {"learning_rate": 1e-3}]) == {
        "trainable": ["head", "all"], "weight_decay": [0.0],
        "learning_rate@head": [0.1], "learning_rate@all": [1e-4, 1e-3],
    }  # fmt: skip
