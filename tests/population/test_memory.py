"""What a population takes of a device's memory."""

import functools

import jax
import pytest

from finetune.member.epoch import epoch_order
from finetune.member.step import init_member
from finetune.population.parallel import OneDevice
from finetune.population.programs import make_programs
from finetune.trials import hparams
from tests.helpers import tasks


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_members_share_what_is_frozen(trainable: str) -> None:
    count, features, width, examples, batch = 64, 256, 128, 32, 8
    recipe = tasks.make_recipe(tasks.mlp(width, features), trainable, examples, batch)
    shared = tasks.make_shared(recipe)
    programs = make_programs(recipe, OneDevice(), True)
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
