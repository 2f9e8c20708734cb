"""Batch statistics and dropout of a user's module, one set for each member."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from finetune.config import TrunkConfig
from finetune.member.epoch import epoch_order
from finetune.member.params import abstract, flatten, live_state, partition, trainable_paths, unflatten
from finetune.member.step import init_member
from finetune.population.group import Group, Splits
from finetune.population.parallel import OneByOne, OneDevice
from finetune.population.programs import make_programs
from finetune.population.train import Start, begin
from finetune.study.plan import group_trials
from finetune.trials import hparams
from finetune.trials.grid import Trial
from finetune.trunk.choice import Room, Trunk, choose_trunk
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, VALIDATION, population, relative, train_population
from tests.own.networks import Linen, linen_task, nnx_task, recipe_of

TASKS = {"linen": linen_task, "nnx": nnx_task}
PLAIN = {"learning_rate": 0.1, "momentum": 0.0, "warmup_fraction": 0.0}


def flax_loop(variables, learning_rate, epochs, batch_size=4):
    """Trains Linen's module as its manual does, on batches without padding; returns variables and validation loss."""
    module, split = Linen(), tasks.data(EXAMPLES)

    @jax.jit
    def step(variables, batch):
        def loss(params):
            tree = {**variables, "params": params}
            logits, changed = module.apply(tree, batch["x"], train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return losses.mean(), changed["batch_stats"]

        gradients, stats = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - learning_rate * g, variables["params"], gradients)
        return {"params": params, "batch_stats": stats}

    for epoch in range(epochs):
        permutation = epoch_order(0, epoch, EXAMPLES, 1).examples[:, 0]
        for start in range(0, EXAMPLES, batch_size):
            index = permutation[start : start + batch_size]
            variables = step(variables, {name: array[index] for name, array in split.items()})
    validation = tasks.data(VALIDATION)
    logits = module.apply(variables, validation["x"], train=False)
    return variables, optax.softmax_cross_entropy_with_integer_labels(logits, validation["label"]).mean()


@pytest.mark.usefixtures("float64")
def test_members_train_as_flax_alone_does(monkeypatch):
    # Flax's own dropout draws other masks, so that it is off in both.
    monkeypatch.setattr(nn.Dropout, "__call__", lambda self, x, *_, **__: x)
    task = linen_task()
    rows = [tasks.row(**PLAIN | {"learning_rate": rate, "seed": seed}) for rate, seed in ((0.1, 0), (0.3, 1))]
    recipe = recipe_of(task, rows, "all")
    assert recipe.state == tuple(f"batch_stats/norm_{n}/{name}" for n in (0, 1) for name in ("mean", "var"))
    shared = tasks.make_shared(recipe)
    members, reports = population(rows, recipe, shared)
    for i, row in enumerate(rows):
        begun = init_member(recipe, shared, tasks.scalars(**row)).leaves
        tree = unflatten(begun)
        stats = tree.pop("batch_stats")
        expected, loss = flax_loop({"params": tree, "batch_stats": stats}, row["learning_rate"], 2)
        for path, leaf in flatten({**expected["params"], "batch_stats": expected["batch_stats"]}).items():
            assert relative(members.leaves[path][i], leaf) < 1e-10, path
            assert relative(members.leaves[path][i], begun[path] + 1e-9) > 1e-3
        np.testing.assert_allclose(reports[-1].metrics["loss"][i], loss, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", TASKS)
def test_population_equals_solo_runs(kind):
    changes = [{}, {"dropout": 0.4}, {"dropout": 0.4, "seed": 3}, {"epochs": 1, "l2": 0.1, "learning_rate": 0.02}]
    rows = [tasks.row(**PLAIN | each) for each in changes]
    recipe = recipe_of(TASKS[kind](), rows, "all")
    shared = tasks.make_shared(recipe)
    members, reports = population(rows, recipe, shared)
    programs = make_programs(recipe, OneByOne(), on_device=False)
    for i, row in enumerate(rows):
        member = programs.init(shared, hparams.stack([row], 1))
        member, told = train_population(programs, recipe, shared, member, (0, 1))
        alone = programs.fetch(member)
        for path in recipe.own:
            assert relative(members.leaves[path][i], alone.leaves[path][0]) < 1e-10, (row, path)
            assert relative(members.best.params[path][i], alone.best.params[path][0]) < 1e-10
        np.testing.assert_allclose(reports[0].metrics["loss"][i], told[0].metrics["loss"][0], rtol=1e-10)
        assert i == 0 or relative(members.leaves[recipe.state[0]][i], members.leaves[recipe.state[0]][0]) > 1e-4


@pytest.mark.parametrize("layout", [OneDevice(), OneByOne()])
def test_a_stage_goes_on_with_the_statistics_of_the_one_before(layout):
    rows = {"first": tasks.row(), "second": tasks.row(seed=1)}
    recipe = recipe_of(linen_task(), list(rows.values()), "all")
    shared, programs = tasks.make_shared(recipe), make_programs(recipe, layout, True)
    trials = {name: Trial(row, {"trainable": "head>all"}) for name, row in rows.items()}
    group = Group(trials, recipe, Trunk("none", ""), shared, Splits({}, {}, {}), 4, 1, layout=layout, programs=programs)
    parent = {path: np.full(leaf.shape, 3.0, leaf.dtype) for path, leaf in tasks.base_leaves(recipe.task).items()}
    members = programs.fetch(begin(group, trials, 2, {"second": Start("parent", parent)}).members)
    assert set(members.leaves) == recipe.own
    for leaves in (members.leaves, members.best.params):
        assert all((leaf[1] == 3).all() and not (leaf[0] == 3).any() for leaf in leaves.values())


def test_a_member_that_diverges_keeps_finite_state_and_changes_no_other():
    rows = [tasks.row(**PLAIN), tasks.row(**PLAIN | {"learning_rate": 1e30})]
    recipe = recipe_of(linen_task(), rows, "all")
    shared = tasks.make_shared(recipe)
    members, _ = population(rows, recipe, shared)
    healthy, _ = population([rows[0], rows[0]], recipe, shared)
    assert members.diverged_update[0] == -1
    assert members.diverged_update[1] >= 0
    for path, leaf in members.leaves.items():
        assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(leaf[0], healthy.leaves[path][0])


@pytest.mark.parametrize("kind", TASKS)
def test_only_what_trains_has_live_statistics(kind):
    task = TASKS[kind]()
    shapes = abstract(task)
    first = {"linen": "norm_0", "nnx": "norms/0"}[kind]
    for trainable, expected in (("head", 0), (f"{first}/scale", 2), ("norm", 4), ("all", 4)):
        trained = trainable_paths(trainable, task, shapes)
        assert not any(path.startswith("batch_stats") for path in trained)
        live = live_state(task, shapes, trained)
        assert len(live) == expected
        assert expected != 2 or {path.rpartition("/")[0] for path in live} == {f"batch_stats/{first}"}


@pytest.mark.parametrize("kind", TASKS)
def test_frozen_statistics_are_cached_and_live_ones_refused(kind):
    task = TASKS[kind]()
    rows = [tasks.row(**PLAIN, dropout=0.3)]
    splits = [tasks.data(size) for size in (EXAMPLES, VALIDATION, VALIDATION)]
    for trainable in ("head", "norm"):
        recipe = recipe_of(task, rows, trainable)
        trials = [Trial(row, {"trainable": trainable}) for row in rows]
        trunk = choose_trunk(TrunkConfig(mode="cached"), recipe, abstract(task), splits, trials, Room(10**9, 10**9))
        assert trunk.mode == "cached"
        assert (trunk.train.mixes is None) == (trainable == "head")
        assert trainable == "head" or "reduce_sum" in trunk.train.mixes


def test_batch_sizes_are_kept_apart_where_statistics_are_live():
    task = linen_task()
    trials = [
        Trial(tasks.row(batch_size=size), {"trainable": trainable}) for size in (4, 8) for trainable in ("head", "all")
    ]
    groups = group_trials(trials, task, abstract(task))
    sizes = [[(trial.choices["trainable"], trial.hparams["batch_size"]) for trial in group] for group in groups]
    assert sorted(sizes) == [[("all", 4)], [("all", 8)], [("head", 4), ("head", 8)]]


@pytest.mark.parametrize("kind", TASKS)
def test_dropout_is_the_trials_and_belongs_to_the_example(kind):
    task = TASKS[kind]()
    task = task._replace(init=jax.jit(task.init), apply=jax.jit(task.apply))
    params = task.init(jax.random.key(0))
    batch = {"x": jnp.asarray(tasks.data(64)["x"])}
    keys = jax.random.split(jax.random.key(1), 64)
    still = task.apply(params, batch, 0.0, None)
    np.testing.assert_allclose(task.apply(params, batch, 0.0, keys), still, rtol=1e-6)  # 0.9 counts for nothing
    half = task.apply(params, batch, 0.5, keys)
    assert float(jnp.abs(half - still).max()) > 0.1
    part = task.apply(params, {"x": batch["x"][5:9]}, 0.5, keys[5:9])
    np.testing.assert_allclose(part, half[5:9], rtol=1e-5)
    mean = jnp.stack([task.apply(params, batch, 0.5, jax.random.split(jax.random.key(n), 64)) for n in range(30)])
    assert float(jnp.abs(mean.mean((0, 1)) - still.mean(0)).max()) < 0.1  # it keeps the expectation


def test_a_batch_of_one_behind_a_trunk_gives_the_same_outputs_and_state():
    rows = [tasks.row(**PLAIN)]
    task = linen_task()
    recipe = recipe_of(task, rows, "norm")
    splits = [tasks.data(size) for size in (EXAMPLES, VALIDATION, VALIDATION)]
    trials = [Trial(row, {"trainable": "norm"}) for row in rows]
    found = choose_trunk(TrunkConfig(mode="cached"), recipe, abstract(task), splits, trials, Room(10**9, 10**9)).train
    params, frozen = partition(flatten(task.init(jax.random.key(0))), recipe.own)
    batch = {"x": jnp.asarray(tasks.data(1)["x"]), "weight": jnp.ones(1)}
    expected = recipe.forward(params, frozen, batch, 0.0, None)
    outputs = found.tail(params, found.constants(frozen), batch | found.trunk(frozen, batch), 0.0, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), outputs, expected)
    assert expected[1].keys() == set(recipe.state)
