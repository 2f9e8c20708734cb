"""Every member of a population equals the run of its trial alone, and none can touch another."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tasks

from finetune import hparams
from finetune.epoch import Report, epoch_order, make_order
from finetune.hparams import NAMES
from finetune.parallel import OneDevice
from finetune.population import Programs, looped, vmapped
from finetune.step import QUANTITIES, Member, Position, Recipe, Shared, eval_step, full_forward, init_member, train_step

EXAMPLES, VALIDATION = 26, 10
STEM = ("stem/kernel", "stem/bias")

# One trial for each axis of Hparams beside the first, which has none of them.
AXES: dict[str, dict[str, float]] = {
    "none": {},
    "learning_rate": {"learning_rate": 0.003},
    "warmup_fraction": {"warmup_fraction": 0.6},
    "weight_decay": {"weight_decay": 0.5},
    "l2": {"l2": 0.1},
    "l1": {"l1": 0.02},
    "l2_sp": {"l2_sp": 0.5},
    "dropout": {"dropout": 0.3},
    "label_smoothing": {"label_smoothing": 0.2},
    "clip_norm": {"clip_norm": 0.2},
    "beta1": {"beta1": 0.5},
    "beta2": {"beta2": 0.9},
    "batch_size": {"batch_size": 12},
    "epochs": {"epochs": 1},
    "seed": {"seed": 5},
    "everything": {
        "learning_rate": 0.02, "warmup_fraction": 0.2, "weight_decay": 0.1, "l2": 0.01, "l1": 0.001, "l2_sp": 0.1,
        "dropout": 0.3, "label_smoothing": 0.1, "clip_norm": 0.5, "beta1": 0.8, "beta2": 0.99, "batch_size": 12,
        "seed": 3,
    },
}  # fmt: skip
SGD_AXES = {"none": {"momentum": 0.0}, "momentum": {"momentum": 0.8}, "batch_size": {"batch_size": 4}}


def recipe_for(rows: Sequence[dict[str, float]], task: Any = None, trainable: str = "all", **optimizer: Any) -> Recipe:
    sizes = [int(row["batch_size"]) for row in rows]
    micro_batch = int(np.gcd.reduce(sizes))
    accumulates = any(size != micro_batch for size in sizes)
    dropout = any(row["dropout"] > 0 for row in rows)
    task = task or tasks.mlp()
    return tasks.make_recipe(
        task, trainable, EXAMPLES, micro_batch, accumulates=accumulates, dropout=dropout, **optimizer
    )


def train(
    programs: Programs,
    recipe: Recipe,
    shared: Shared,
    members: Any,
    epochs: Sequence[int],
    data_seed: int = 0,
    layout: OneDevice | None = None,
) -> tuple[Any, list[Report]]:
    """Returns the members after `epochs`, and the report of each."""
    layout = layout or OneDevice()
    shared, split, validation = layout.put_all((shared, tasks.data(EXAMPLES), tasks.data(VALIDATION)))
    whole = make_order(np.arange(VALIDATION), 4)
    reports = []
    for epoch in epochs:
        order = epoch_order(data_seed, epoch, EXAMPLES, recipe.micro_batch)
        bounds = np.int32(epoch), np.int32(0), np.int32(len(order.examples))
        members = programs.train(members, shared, split, layout.put_order(order), *bounds)
        checks = layout.put_order(whole), np.int32(len(whole.examples)), np.int32(epoch + 1)
        members, report = programs.validate(members, shared, validation, *checks)
        reports.append(report)
    return members, reports


def population(
    rows: Sequence[dict[str, float]],
    recipe: Recipe,
    shared: Shared,
    make: Callable[..., Programs] = vmapped,
    on_device: bool = True,
    size: int = 0,
    data_seed: int = 0,
) -> tuple[Any, list[Report]]:
    """Returns the fetched members of a population after two epochs, and its reports."""
    programs = make(recipe, "accuracy", OneDevice(), on_device)
    members = programs.init(shared, hparams.stack(rows, size or len(rows)))
    members, reports = train(programs, recipe, shared, members, (0, 1), data_seed)
    return programs.fetch(members), reports


class Solo:
    """Trains one trial alone, stepped in Python with its own batch size; compiles once for each recipe."""

    def __init__(self, **optimizer: Any):
        self._optimizer = optimizer
        self._steps: dict[Any, Any] = {}

    def run(self, row: dict[str, float], pretrained: tuple[str, ...]) -> tuple[Member, dict[str, float]]:
        """Returns the trained member and its metrics on the validation split."""
        key = (row["batch_size"], row["dropout"] > 0)
        if key not in self._steps:
            recipe = recipe_for([row], **self._optimizer)
            assert not recipe.accumulates
            functions = (jax.jit(functools.partial(each, recipe)) for each in (init_member, train_step))
            self._steps[key] = recipe, *functions
        recipe, init, step = self._steps[key]
        shared = tasks.make_shared(recipe, pretrained)
        member, split = init(shared, tasks.scalars(**row)), tasks.data(EXAMPLES)
        for epoch in range(int(row["epochs"])):
            permutation = epoch_order(int(row["data_seed"]), epoch, EXAMPLES, 1).examples[:, 0]
            starts = range(0, EXAMPLES, int(row["batch_size"]))
            for micro, first in enumerate(starts):
                index = permutation[first : first + int(row["batch_size"])]
                weight = np.arange(int(row["batch_size"])) < len(index)
                index = np.pad(index, (0, len(weight) - len(index)))
                batch = {name: array[index] for name, array in split.items()}
                batch |= {"index": index, "weight": weight.astype(np.float32)}
                last = jnp.bool_(micro == len(starts) - 1)
                member = step(member, shared, batch, Position(jnp.int32(epoch), jnp.int32(micro), last))
        validation = tasks.data(VALIDATION) | {"weight": np.ones(VALIDATION, np.float32)}
        sums = eval_step(recipe, member.params, shared, validation)
        return member, {name: float(sums[name]) / VALIDATION for name in ("loss", "accuracy")}


def relative(a: Any, b: Any) -> float:
    """Returns the distance of two arrays over the norm of the second."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def check_against_solo(axes: dict[str, dict[str, float]], tolerance: float, data_seed: int, **optimizer: Any) -> None:
    rows = [tasks.row(data_seed=data_seed, **changes) for changes in axes.values()]
    recipe = recipe_for(rows, **optimizer)
    members, reports = population(rows, recipe, tasks.make_shared(recipe, STEM), data_seed=data_seed)
    solo = Solo(**optimizer)
    start = members.best.params["head/bias"].dtype
    assert start == jax.dtypes.canonicalize_dtype(float)
    for i, (axis, row) in enumerate(zip(axes, rows, strict=True)):
        alone, metrics = solo.run(row, STEM)
        assert members.updates[i] == alone.updates == row["epochs"] * -(-EXAMPLES // int(row["batch_size"]))
        for path in recipe.paths:
            assert relative(members.params[path][i], alone.params[path]) < tolerance, (axis, path)
        report = reports[int(row["epochs"]) - 1]
        np.testing.assert_allclose(report.metrics["loss"][i], metrics["loss"], rtol=tolerance, err_msg=axis)
        assert report.metrics["accuracy"][i] == pytest.approx(metrics["accuracy"]), axis
    # Every axis has moved its member, or the test would prove nothing.
    for i, axis in enumerate(axes):
        moved = max(relative(members.params[path][i], members.params[path][0]) for path in recipe.paths)
        assert (moved > 1e-3) == (i > 0), axis


def test_the_sample_covers_every_axis() -> None:
    assert {*AXES, *SGD_AXES, "data_seed"} - {"none", "everything"} == set(NAMES)


def test_population_equals_solo_runs_in_double_precision() -> None:
    with jax.enable_x64(True):
        check_against_solo(AXES, 1e-10, data_seed=0)


def test_population_equals_solo_runs_in_single_precision() -> None:
    axes = {axis: {"epochs": 1} | changes for axis, changes in AXES.items() if axis != "epochs"}
    check_against_solo(axes, 1e-5, data_seed=0)


def test_population_with_momentum_and_another_order_equals_solo_runs() -> None:
    with jax.enable_x64(True):
        check_against_solo(SGD_AXES, 1e-10, data_seed=4, name="sgd", schedule="linear")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, float]]:
    changes = ({}, {"dropout": 0.3, "seed": 1}, {"batch_size": 12}, {"epochs": 1, "l2_sp": 0.1}, {"l1": 0.01})
    return [tasks.row(**each) for each in changes]


@pytest.fixture(scope="module")
def recipe(rows: list[dict[str, float]]) -> Recipe:
    return recipe_for(rows)


@pytest.fixture(scope="module")
def shared(recipe: Recipe) -> Shared:
    return tasks.make_shared(recipe, STEM)


@pytest.fixture(scope="module")
def programs(recipe: Recipe) -> Programs:
    return vmapped(recipe, "accuracy", OneDevice(), True)


@pytest.fixture(scope="module")
def expected(programs: Programs, rows: Any, recipe: Recipe, shared: Shared) -> tuple[Any, list[Report]]:
    members, reports = train(programs, recipe, shared, programs.init(shared, hparams.stack(rows, len(rows))), (0, 1))
    return programs.fetch(members), reports


def assert_close(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make, on_device", [(looped, True), (looped, False), (vmapped, False)])
def test_every_mode_gives_the_same(
    make: Any, on_device: bool, rows: Any, recipe: Recipe, shared: Shared, expected: Any
) -> None:
    members, reports = population(rows, recipe, shared, make, on_device)
    assert_close(members, expected[0])
    assert_close(reports, expected[1])


@pytest.mark.parametrize("make", [vmapped, looped])
def test_a_convolution_gives_the_same_in_every_mode(make: Any) -> None:
    task = tasks.convolution()
    recipe = tasks.make_recipe(task, "all", 6, 3)
    shared = tasks.make_shared(recipe)
    programs = make(recipe, "loss", OneDevice(), True)
    members = programs.init(shared, hparams.stack([tasks.row(batch_size=3), tasks.row(batch_size=3, seed=1)], 2))
    split, order = tasks.data(6, 4, 4, 1), epoch_order(0, 0, 6, 3)
    trained = programs.fetch(programs.train(members, shared, split, order, np.int32(0), np.int32(0), np.int32(2)))
    step = jax.jit(functools.partial(train_step, recipe))
    alone = tasks.start(recipe, shared, batch_size=3, seed=1)
    for row in range(2):
        batch = {name: array[order.examples[row]] for name, array in split.items()}
        batch |= {"index": order.examples[row], "weight": order.weight[row]}
        alone = step(alone, shared, batch, Position(jnp.int32(0), jnp.int32(row), jnp.bool_(row == 1)))
    for path in recipe.paths:
        assert relative(trained.params[path][1], alone.params[path]) < 1e-5


def test_ghosts_change_nothing(rows: Any, recipe: Recipe, shared: Shared, expected: Any) -> None:
    members, reports = population(rows, recipe, shared, size=8)
    assert_close(jax.tree.map(lambda leaf: leaf[:5], members), expected[0])
    assert_close(jax.tree.map(lambda leaf: leaf[:5], reports), expected[1])
    assert members.updates[5:].tolist() == [0, 0, 0]
    assert members.best.epoch[5:].tolist() == [0, 0, 0]
    assert members.diverged_update[5:].tolist() == [-1, -1, -1]


def test_compaction_changes_nothing(
    programs: Programs, rows: Any, recipe: Recipe, shared: Shared, expected: Any
) -> None:
    members = programs.init(shared, hparams.stack(rows, len(rows)))
    members, _ = train(programs, recipe, shared, members, (0,))
    before = programs.fetch(members)
    members = programs.take(members, [1, 4])
    for a, b in zip(jax.tree.leaves(programs.fetch(members)), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b[[1, 4]])
    members, reports = train(programs, recipe, shared, members, (1,))
    assert_close(programs.fetch(members), jax.tree.map(lambda leaf: leaf[[1, 4]], expected[0]))
    assert_close(reports[0], jax.tree.map(lambda leaf: leaf[[1, 4]], expected[1][1]))


def test_one_program_whatever_the_hyperparameters(recipe: Recipe, shared: Shared, rows: Any) -> None:
    traces = []

    def apply(*arguments: Any) -> jax.Array:
        traces.append(1)
        return tasks.mlp().apply(*arguments)

    forward = full_forward(recipe.task._replace(apply=apply))
    recipe = recipe._replace(forward=forward, evaluating_forward=forward)
    programs = vmapped(recipe, "accuracy", OneDevice(), True)
    counts = []
    for changes in ({}, {"learning_rate": 0.1, "clip_norm": 1.0}, {"batch_size": 4, "epochs": 1, "seed": 8}):
        population_rows = [{**row, **changes} for row in rows]
        members = programs.init(shared, hparams.stack(population_rows, len(rows)))
        train(programs, recipe, shared, members, (0, 1))
        counts.append(len(traces))
    assert counts[0] == counts[1] == counts[2]
    assert {name: len(program.executables) for name, program in programs.compiled.items()} == {
        "init": 1,
        "train": 1,
        "validate": 1,
        "test": 0,
    }


def test_reports_hold_the_epochs_of_each_member(expected: Any) -> None:
    first, second = expected[1]
    assert first.updates.tolist() == [7, 7, 3, 7, 7]
    assert second.updates.tolist() == [14, 14, 6, 7, 14]  # the fourth member's horizon is one epoch
    assert second.train_loss[3] == 0.0
    assert (second.train_loss[[0, 1, 2, 4]] < first.train_loss[[0, 1, 2, 4]]).all()
    better = second.metrics["accuracy"] > first.metrics["accuracy"]
    better[3] = False
    assert second.best_epoch.tolist() == np.where(better, 2, 1).tolist()
    best = np.where(better, second.metrics["accuracy"], first.metrics["accuracy"])
    np.testing.assert_array_equal(second.best_value, best)


def test_the_test_split_is_judged_by_the_best_parameters(
    programs: Programs, rows: Any, recipe: Recipe, shared: Shared
) -> None:
    members = programs.init(shared, hparams.stack(rows, len(rows)))
    spoilt = members._replace(params=jax.tree.map(lambda leaf: leaf + jnp.nan, members.params))
    split, order = tasks.data(VALIDATION), make_order(np.arange(VALIDATION), 4)
    batches = np.int32(len(order.examples))
    metrics = programs.test(spoilt, shared, split, order, batches)
    for i in range(len(rows)):
        params = {path: np.asarray(leaf[i], np.float64) for path, leaf in members.best.params.items()}
        loss, _ = formulas.mlp_loss_and_gradients(params, split["x"], split["label"], 0.0)
        np.testing.assert_allclose(metrics["loss"][i], loss, rtol=1e-5)


@pytest.fixture(scope="module")
def relu_programs() -> tuple[Recipe, Shared, Programs]:
    """Programs of a model in which a NaN that comes from below its relu leaves the loss finite."""
    task = tasks.mlp(activation=lambda x: jnp.where(x > 0, x, 0))
    recipe = tasks.make_recipe(task, "all", EXAMPLES, 4, accumulates=True)
    return recipe, tasks.make_shared(recipe), vmapped(recipe, "accuracy", OneDevice(), True)


def bitwise_equal(a: Any, b: Any, members: Sequence[int]) -> None:
    for first, second in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(first)[list(members)], np.asarray(second)[list(members)])


def test_a_member_that_diverges_changes_no_bit_of_another(relu_programs: tuple) -> None:
    recipe, shared, programs = relu_programs
    others = [tasks.row(), tasks.row(batch_size=8, seed=2), tasks.row(epochs=1)]
    ends = []
    for changes in ({"learning_rate": 1e30, "warmup_fraction": 0.0}, {}, {"epochs": 0}):
        rows = [*others[:2], tasks.row(seed=9, **changes), others[2]]
        members = programs.init(shared, hparams.stack(rows, 4))
        members, reports = train(programs, recipe, shared, members, (0, 1))
        ends.append((programs.fetch(members), reports))
    for other in ends[1:]:
        bitwise_equal(ends[0], other, (0, 1, 3))
    wild, reports = ends[0]
    assert wild.diverged_update.tolist() == [-1, -1, 1, -1]
    assert QUANTITIES[wild.diverged_quantity[2]] == "loss"
    assert wild.updates.tolist() == [14, 8, 1, 7]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((wild.params, wild.optimizer_state)))
    assert reports[0].diverged_update.tolist() == [-1, -1, 1, -1]
    assert wild.best.epoch[2] == 0


def test_nan_weights_behind_a_finite_loss_change_no_bit_of_another(relu_programs: tuple) -> None:
    recipe, shared, programs = relu_programs
    ends = []
    for value in (np.nan, 0.1):
        members = programs.init(shared, hparams.stack([tasks.row(), tasks.row(seed=1), tasks.row(seed=2)], 3))
        bias = members.params["stem/bias"].at[1, 0].set(value)
        members = members._replace(params=members.params | {"stem/bias": bias})
        members, reports = train(programs, recipe, shared, members, (0, 1))
        ends.append((programs.fetch(members), reports))
    bitwise_equal(*ends, (0, 2))
    assert ends[0][0].diverged_update.tolist() == [-1, 0, -1]
    assert QUANTITIES[ends[0][0].diverged_quantity[1]] == "parameters"
    assert np.isfinite(ends[0][1][0].metrics["loss"]).all()


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_members_share_what_is_frozen(trainable: str) -> None:
    count, features, width, examples, batch = 64, 256, 128, 32, 8
    recipe = tasks.make_recipe(tasks.mlp(width, features), trainable, examples, batch)
    shared = tasks.make_shared(recipe)
    programs = vmapped(recipe, "accuracy", OneDevice(), True)
    members = jax.eval_shape(
        jax.vmap(functools.partial(init_member, recipe), (None, 0)),
        shared,
        hparams.stack([tasks.row(batch_size=batch)], count),
    )
    split, order = tasks.data(examples, features), epoch_order(0, 0, examples, batch)
    memory = programs.compile(members, shared, split, order).memory_analysis()

    head = width * 3 + 3
    block = width * width + width
    trunk = features * width + width + (block if trainable == "head" else 0)
    trained = head + (block if trainable == "last:1" else 0)
    # Parameters, Adam's two moments, and the best so far; Adam's count; 16 hyperparameters; six scalars of
    # bookkeeping and two of the best.
    member_bytes = 4 * (4 * trained) + 4 + 4 * 16 + 4 * (6 + 2)
    data_bytes = examples * (4 * features + 4) + 2 * 4 * examples + 3 * 4
    expected = count * member_bytes + 4 * trunk + data_bytes
    assert memory.argument_size_in_bytes == pytest.approx(expected, rel=0.01)

    # In flight: gradients, updates and their like (of one size with the trained leaves), activations of a batch.
    in_flight = 4 * (6 * trained + 10 * batch * width)
    assert memory.temp_size_in_bytes < count * in_flight + 4 * trunk
    if trainable == "head":
        assert memory.temp_size_in_bytes < count * 4 * trunk / 4
