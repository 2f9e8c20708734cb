"""Every way to compute what is frozen gives the same training: a small BERT in float64, to its last row."""

from pathlib import Path

import numpy as np
import pytest

from finetune.config import ExecutionConfig, OptimizerConfig, TrunkConfig
from finetune.member.params import abstract, decayed_paths, partition, trainable_paths
from finetune.member.step import Recipe, Shared, full_forward
from finetune.population import measure
from finetune.population.group import Group, Splits, with_features
from finetune.population.train import Listener, begin, train_chunk
from finetune.trials.grid import Trial
from finetune.trunk.choice import Room, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import FeatureStore
from tests.helpers import cuts
from tests.helpers.tasks import row

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.slow]

EXAMPLES = (14, 5, 6)  # of the training, validation and test split
MIDDLE = "block_1/mlp/up/kernel"
PLENTY = 10**12

# (trunk.mode, where features may lie, execution.mode, epochs_on_device)
PLAIN = ("none", PLENTY, "loop", "step")
WAYS = {
    "cached on the device": ("cached", PLENTY, "vmap", "scan"),
    "cached on the device, looped": ("cached", PLENTY, "loop", "scan"),
    "cached on the host": ("cached", 0, "vmap", "auto"),
    "cached on the host, looped": ("cached", 0, "loop", "auto"),
    "shared by vmap": ("shared", PLENTY, "vmap", "scan"),
    "shared by a list": ("shared", PLENTY, "loop", "auto"),
}


def splits():
    random = np.random.default_rng(3)
    found = []
    for size in EXAMPLES:
        batch = {name: np.asarray(array) for name, array in cuts.batch_of(cuts.TEXT, size).items()}
        found.append({**batch, "label": random.integers(0, cuts.CLASSES, size).astype(np.int32)})
    return found


def trials(dropout):
    rates = [1e-3, 1e-2, 3e-2]
    return [
        Trial(row(learning_rate=rate, dropout=dropout, seed=number % 2, weight_decay=0.1, epochs=2), {})
        for number, rate in enumerate(rates)
    ]


def recipe_of(task, trainable, rows):
    paths = trainable_paths(trainable, task, abstract(task))
    return Recipe(
        task=task,
        forward=full_forward(task),
        evaluating_forward=full_forward(task),
        metric="loss",
        paths=tuple(sorted(paths)),
        optimizer=OptimizerConfig(),
        decayed=decayed_paths("matrices", {path: abstract(task)[path] for path in paths}),
        examples=EXAMPLES[0],
        micro_batch=4,
        accumulates=False,
        dropout=any(trial.hparams["dropout"] > 0 for trial in rows),
        seeds=2,
    )


def run(trainable, way, dropout=0.0):
    """Returns ({id: [every number of its curve and result]}, the trunk)."""
    mode, device, execution, on_device = way
    model, example = cuts.bert(dropout_at="head")
    task, rows = cuts.task_of(model, example), trials(dropout)
    recipe, data = recipe_of(task, trainable, rows), splits()
    base = {path: np.asarray(leaf) for path, leaf in cuts.draw(abstract(task)).items()}
    trunk = choose_trunk(TrunkConfig(mode=mode), recipe, abstract(task), data, rows, Room(device, PLENTY))
    features = Pass([trunk], base, data, 4, FeatureStore(Path(), 0)).run(lambda: None)
    trained, frozen = partition(base, frozenset(recipe.paths))
    pretrained = {path: leaf for path, leaf in trained.items() if not path.startswith("head")}
    named = {str(number): row for number, row in enumerate(rows)}
    group = Group(named, recipe, trunk, Shared(frozen, pretrained), Splits(*data), eval_batch=4, trained_bytes=1)
    found = measure.choose(ExecutionConfig(execution, 3, 1, on_device), with_features(group, features), None)
    numbers = {name: [] for name in named}
    listener = Listener(
        lambda rows: _note(numbers, rows), lambda rows, leaves: _end(numbers, rows, leaves), lambda population: None
    )
    population = begin(found, named, found.execution.size, {})
    train_chunk(found, population, 100, listener)
    return numbers, trunk


def _note(numbers, rows):
    for each in rows:
        numbers[each["id"]] += [each["train_loss"], each["val_loss"], each["val_accuracy"]]


def _end(numbers, rows, leaves):
    for each in rows:
        best, last = leaves(each["id"])
        of_leaves = [
            np.sum(leaf * np.arange(leaf.size).reshape(leaf.shape)) for leaf in (*best.values(), *last.values())
        ]
        numbers[each["id"]] += [each["metrics"]["test_loss"], *of_leaves]


@pytest.fixture(scope="module")
def plain():
    """Returns what a run without any sharing gives, computed once for each question."""
    known = {}

    def find(trainable, dropout=0.0):
        if (trainable, dropout) not in known:
            known[trainable, dropout] = run(trainable, PLAIN, dropout)[0]
        return known[trainable, dropout]

    return find


def assert_same(found, expected, tolerance=1e-10):
    assert found.keys() == expected.keys()
    for identity, numbers in expected.items():
        np.testing.assert_allclose(found[identity], numbers, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("trainable", ["head", "last:1", "bias", "norm", MIDDLE])
@pytest.mark.parametrize("way", ["cached on the device", "shared by vmap"])
def test_every_choice_of_what_trains_is_the_same_cached_and_shared(plain, trainable, way):
    found, trunk = run(trainable, WAYS[way])
    assert trunk.mode == WAYS[way][0]
    assert_same(found, plain(trainable))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_same_with_dropout_behind_the_trunk(plain, way):
    found, trunk = run("last:1", WAYS[way], dropout=0.3)
    assert trunk.mode == WAYS[way][0]
    if trunk.mode == "cached":
        assert trunk.place == ("device" if WAYS[way][1] else "host")
    assert_same(found, plain("last:1", 0.3))
