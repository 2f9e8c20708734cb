"""Members or the batch over eight devices give what one device gives."""

from typing import Any

import jax
import numpy as np
import pytest

from finetune.member.epoch import Order, Report, epoch_order, make_order
from finetune.member.step import Recipe, Shared
from finetune.population.parallel import BatchOverDevices, MembersOverDevices, OneDevice, choose_layout, padded_size
from finetune.population.programs import Programs, make_programs
from finetune.trials import hparams
from tests.helpers import tasks

EXAMPLES, VALIDATION, MICRO_BATCH = 22, 9, 4
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, float]]:
    """Hyperparameters of 13 members that differ in rate, batch size, epochs, dropout and seed."""
    return [
        tasks.row(
            learning_rate=0.002 * (i + 1), batch_size=4 * (1 + i % 2), epochs=1 + i % 2, dropout=0.1 * (i % 3), seed=i
        )
        for i in range(13)
    ]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    options = {"accumulates": True, "dropout": True, "metric": "loss"}
    return tasks.make_recipe(tasks.mlp(), "last:1", EXAMPLES, MICRO_BATCH, **options)


@pytest.fixture(scope="module")
def shared(recipe: Recipe) -> Shared:
    return tasks.make_shared(recipe, ("block_0/kernel",))


def train(layout: OneDevice, recipe: Recipe, shared: Shared, rows: list) -> tuple[Any, list[Report], dict, Programs]:
    """Returns the members after two epochs, the reports, the metrics on a test split, and the programs."""
    programs = make_programs(recipe, layout, True)
    size = padded_size(len(rows), layout)
    shared, split, check = layout.put_all((shared, tasks.data(EXAMPLES), tasks.data(VALIDATION)))
    members = programs.init(shared, hparams.stack(rows, size))
    whole = make_order(np.arange(VALIDATION), 6)
    checks = layout.put_order(whole), np.int32(len(whole.examples))
    reports = []
    for epoch in range(2):
        order = epoch_order(0, epoch, EXAMPLES, MICRO_BATCH)
        bounds = np.int32(epoch), np.int32(0), np.int32(len(order.examples))
        members = programs.train(members, shared, split, layout.put_order(order), *bounds)
        members, report = programs.validate(members, shared, check, *checks, np.int32(epoch + 1))
        reports.append(report)
    return members, reports, programs.test(members, shared, check, *checks), programs


@pytest.fixture(scope="module")
def expected(recipe: Recipe, shared: Shared, rows: list) -> tuple[Any, list[Report], dict]:
    members, reports, metrics, programs = train(OneDevice(), recipe, shared, rows)
    return programs.fetch(members), reports, metrics


@pytest.fixture(scope="module")
def members_over_devices(recipe: Recipe, shared: Shared, rows: list) -> tuple:
    return train(MembersOverDevices(jax.local_devices()), recipe, shared, rows)


@pytest.fixture(scope="module")
def batch_over_devices(recipe: Recipe, shared: Shared, rows: list) -> tuple:
    return train(BatchOverDevices(jax.local_devices()), recipe, shared, rows[1:3])


def assert_close(got: Any, wanted: Any, places: slice) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a[: len(b[places])], b[places], rtol=1e-5, atol=1e-5)


def test_there_are_eight_devices() -> None:
    assert jax.local_device_count() == 8


def test_thirteen_members_over_devices_equal_one_device(members_over_devices: tuple, expected: tuple) -> None:
    members, reports, metrics, programs = members_over_devices
    fetched = programs.fetch(members)
    assert fetched.updates.shape == (16,)
    assert members.updates.shape == (8, 2)
    assert len(members.updates.sharding.device_set) == 8
    assert_close((fetched, reports, metrics), expected, slice(13))
    assert fetched.updates[13:].tolist() == [0, 0, 0]


def test_two_members_with_the_batch_over_devices_equal_one_device(batch_over_devices: tuple, expected: tuple) -> None:
    members, reports, metrics, programs = batch_over_devices
    fetched = programs.fetch(members)
    assert fetched.updates.shape == (2,)
    assert_close((fetched, reports, metrics), expected, slice(1, 3))


def collectives_of(programs: Programs, name: str) -> list[str]:
    texts = [executable.as_text() for executable in programs.compiled[name].executables.values()]
    assert texts
    return [each for each in COLLECTIVES if any(each in text for text in texts)]


@pytest.mark.parametrize("name", ["init", "train", "validate", "test"])
def test_devices_that_hold_members_do_not_talk(members_over_devices: tuple, name: str) -> None:
    assert collectives_of(members_over_devices[3], name) == []


@pytest.mark.parametrize("name", ["train", "validate", "test"])
def test_devices_that_share_a_batch_add_their_sums(batch_over_devices: tuple, name: str) -> None:
    assert collectives_of(batch_over_devices[3], name) == ["all-reduce"]


def test_take_from_members_over_devices(members_over_devices: tuple) -> None:
    members, _, _, programs = members_over_devices
    wanted = [0, 12, 3, 3, 3, 3, 3, 3]
    taken = programs.take(members, wanted)
    assert taken.updates.shape == (8, 1)
    before, after = programs.fetch(members), programs.fetch(taken)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b[wanted])


def test_take_from_members_that_share_batches(batch_over_devices: tuple) -> None:
    members, _, _, programs = batch_over_devices
    before, after = programs.fetch(members), programs.fetch(programs.take(members, [1]))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b[[1]])


def test_an_order_is_cut_over_devices_and_padded_with_weight_zero() -> None:
    order = BatchOverDevices(jax.local_devices()[:2]).put_order(make_order(np.array([5, 6, 7, 8, 9]), 3))
    assert isinstance(order, Order)
    # Batches 5 6 7 and 8 9 -, each of three, become two parts of two.
    np.testing.assert_array_equal(order.examples, [[[5, 6], [8, 9]], [[7, 0], [0, 0]]])
    np.testing.assert_array_equal(order.weight, [[[1, 1], [1, 1]], [[1, 0], [0, 0]]])


@pytest.mark.parametrize(
    "members, limit, kind, devices, size",
    [
        (13, 0, MembersOverDevices, 8, 16),
        (8, 0, MembersOverDevices, 8, 8),
        (7, 0, BatchOverDevices, 8, 7),
        (1, 0, BatchOverDevices, 8, 1),
        (7, 3, MembersOverDevices, 3, 9),
        (2, 3, BatchOverDevices, 3, 2),
        (7, 1, OneDevice, 1, 7),
        (100, 50, MembersOverDevices, 8, 104),
    ],
)
def test_layouts(members: int, limit: int, kind: type, devices: int, size: int) -> None:
    layout = choose_layout("vmap", members, limit)
    assert (type(layout), layout.count, padded_size(members, layout)) == (kind, devices, size)
