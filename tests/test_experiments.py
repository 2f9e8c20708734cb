"""The experiments: each runs, tiny, on digits, and what they compute is what one finds by hand."""

import functools
import importlib
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver

from finetune.analysis.table import trials as table
from finetune.config import Config, DataConfig, ExecutionConfig

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NAMES = ("learning_rate", "batch_size", "epochs", "regularization", "freezing", "exploration", "lp_ft", "lora")
LONG = ("batch_size", "epochs", "lora", "regularization")  # half a minute each
RATES = [1e-3, 1e-2, 1e-1]
TINY = {  # what is searched, in place of a script's own
    "learning_rate": {"_RATES": RATES},
    "batch_size": {"_RATES": {"digits": RATES}, "_BATCHES": {"digits": (50, 100)}},
    "epochs": {"_RATES": RATES},
    "regularization": {
        "_STRENGTHS": {"l2_sp": [0.1], "dropout": [0.5]},
        "_RATES": RATES,
        "_BASIN_RATES": RATES,
        "_BASINS": {"independent decay": ("independent", "weight_decay", 1e-3, 10.0)},
    },
    "freezing": {"_RATES": RATES, "_PARTS": ["all", "head"]},
    "lp_ft": {"_RATES": RATES},
    "lora": {"_RATES": RATES, "_RANK": 2, "_RANKS": [1, 2]},
    "exploration": {"_GRID": {"learning_rate": RATES, "batch_size": [50, 100]}},
}
SAID = {
    "learning_rate": "decades",
    "batch_size": "exponent",
    "epochs": "cut off there",
    "regularization": "independent decay",
    "freezing": "of its FLOPs",
    "lp_ft": "test set noise, head>all",
    "lora": "times that of full fine-tuning",
    "exploration": "behind",
}


@pytest.fixture(scope="module")
def scripts():
    """The modules in experiments/, with flags at their defaults; checkpoint_reuse has a --workdir of its own."""
    sys.path.insert(0, str(EXPERIMENTS))
    modules = {name: importlib.import_module(name) for name in (*NAMES, "answers", "subjects")}
    sys.path.remove(str(EXPERIMENTS))
    flags.FLAGS.mark_as_parsed()
    one_device = functools.partial(Config, execution=ExecutionConfig(devices=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules["subjects"], "Config", one_device)
        yield modules


@pytest.fixture(scope="module")
def tiny():
    """Flags of a study of seconds."""
    small = {
        "subject": ["digits"],
        "seeds": 2,
        "epochs": 2,
        "width": 4,
        "depth": 1,
        "updates": [2, 2],
        "horizon": [1, 2],
    }
    return {**small, "draws": 20}


@pytest.fixture(scope="module")
def vit(scripts, tiny, tmp_path_factory):
    """A work directory that holds the ViT that all experiments start from."""
    directory = tmp_path_factory.mktemp("first")
    with flagsaver.flagsaver(**tiny):
        scripts["subjects"].digits(directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in NAMES])
def test_every_experiment_answers_its_question(scripts, tiny, vit, name, tmp_path, monkeypatch, capsys):
    shutil.copytree(vit, tmp_path / "runs")
    for constant, value in TINY[name].items():
        assert hasattr(scripts[name], constant)
        monkeypatch.setattr(scripts[name], constant, value)
    with flagsaver.flagsaver(**tiny, workdir=str(tmp_path / "runs"), figures=str(tmp_path)):
        scripts[name].main([])
    assert SAID[name] in capsys.readouterr().out
    figure = tmp_path / f"{name}.svg"
    assert ElementTree.parse(figure).getroot().tag.endswith("svg")
    assert "NaN" not in figure.read_text()


def test_the_good_region_ends_where_the_tolerance_is_used_up(scripts):
    means = np.array([0.2, 0.6, 0.8, 0.8, 0.7, 0.1])
    ends = scripts["learning_rate"].ends
    assert ends(np.arange(6.0), means, 0.1) == pytest.approx((1.5, 4.0))
    assert ends(np.arange(6.0), means, 0.05) == pytest.approx((1.75, 3.5))
    assert ends(np.arange(6.0), means, 1.0) == (0.0, 5.0)


@pytest.mark.parametrize("power", [-1.0, 0.0])
def test_the_edge_of_a_basin_has_its_slope(scripts, power):
    rates, decays = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-6, 1e6, 49)
    means = -np.maximum(0.0, np.log10(decays) - power * np.log10(rates)[:, None])
    assert scripts["regularization"].slope(rates, decays, means) == pytest.approx(power)


def test_a_basin_without_an_edge_has_no_slope(scripts):
    assert np.isnan(scripts["regularization"].slope(np.ones(4), np.geomspace(1, 10, 3), np.zeros((4, 3))))


def test_a_search_without_noise_finds_the_best_it_tries(scripts):
    utilities = np.repeat([[0.1], [0.5], [0.9]], 4, axis=1)
    search, random = scripts["exploration"].search, np.random.default_rng(0)
    with flagsaver.flagsaver(draws=3000):
        assert search(utilities, 3, 1, random).max() == 0
        assert search(utilities, 1, 2, random).mean() == pytest.approx(0.4, abs=0.02)  # the mean of 0.8, 0.4, 0
        assert search(utilities, 2, 2, random).mean() == pytest.approx(0.4 / 3, abs=0.02)  # best left out: 1 of 3


def test_every_batch_size_makes_the_same_number_of_updates(scripts):
    config = Config(data=DataConfig(name="digits", train_examples=100))
    with flagsaver.flagsaver(updates=[100, 300]):
        (_, by_epochs), (_, by_updates) = scripts["batch_size"].sweeps(config)
    assert all("epochs" not in each for each in by_epochs)
    assert {100 // each["batch_size"] * each["epochs"] for each in by_updates} == {100}


def test_a_gain_is_paired_by_seed(scripts):
    frame = pd.DataFrame({"seed": [0, 1, 2] * 2, "weight_decay": [0.0] * 3 + [0.1] * 3})
    frame = frame.assign(learning_rate=0.1, val_accuracy=0.5, test_accuracy=[0.1, 0.5, 0.9, 0.2, 0.7, 1.2])
    trials = table.from_frame(frame, "val_accuracy", False, hyperparameters=["weight_decay", "learning_rate", "seed"])
    trials = trials._replace(frame=trials.frame.assign(test=frame["test_accuracy"]))
    found = scripts["answers"].gain(trials, {"weight_decay": 0.1}, {"weight_decay": 0.0})
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_the_end_is_the_last_epoch(scripts):
    frame = pd.DataFrame({"id": ["a", "b"], "seed": 0, "learning_rate": [0.1, 0.2], "val_accuracy": [0.9, 0.8]})
    curves = pd.DataFrame({"id": ["b", "a", "a", "b"], "epoch": [2, 2, 1, 1], "val_accuracy": [0.7, 0.6, 0.9, 0.8]})
    names = ["learning_rate", "seed"]
    trials = table.from_frame(frame, "val_accuracy", False, hyperparameters=names, curves=curves)
    assert scripts["subjects"].at_the_end(trials).frame["value"].tolist() == [0.6, 0.7]
