"""The choice of mode and of the chunk's size on real, small workloads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import ExecutionConfig
from finetune.errors import UserError
from finetune.member.step import Shared
from finetune.member.task import Task
from finetune.population import measure
from finetune.population.group import Execution, Group, Splits
from finetune.trials.grid import Trial
from finetune.trunk.choice import Trunk
from tests.helpers.tasks import data, make_recipe, make_shared, mlp, row

ONE = ExecutionConfig(devices=1)


def workload(recipe, split, members, shared=None):
    trained = [leaf for path, leaf in jax.eval_shape(recipe.task.init, jax.random.key(0)).items()]
    return Group(
        trials={str(seed): Trial(row(seed=seed, batch_size=recipe.micro_batch), {}) for seed in range(members)},
        recipe=recipe,
        trunk=Trunk("none", ""),
        shared=shared or Shared({}, {}),
        splits=Splits(split, split, split),
        eval_batch=16,
        trained_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained)),
    )


def test_dense_model_runs_as_chosen_and_says_why():
    recipe = make_recipe(mlp(), "all", examples=12, micro_batch=4)
    found = measure.choose(ONE, workload(recipe, data(12), 6), None)
    assert found.execution.size == 6
    assert found.execution.mode in ("vmap", "loop")
    assert "ms by vmap" in found.execution.reason
    assert "ms by loop" in found.execution.reason
    assert found.cost.train_step_seconds > 0
    assert found.cost.bytes > 0


def test_forced_mode_and_chunk_are_taken():
    recipe = make_recipe(mlp(), "all", examples=12, micro_batch=4)
    config = ExecutionConfig(devices=1, mode="loop", epochs_on_device="step", chunk=2)
    execution = measure.choose(config, workload(recipe, data(12), 6), None).execution
    assert execution[:3] == ("loop", False, 2)


def test_earlier_choice_is_taken_again():
    recipe = make_recipe(mlp(), "all", examples=12, micro_batch=4)
    earlier = Execution("loop", True, 3, "measured before")
    assert measure.choose(ONE, workload(recipe, data(12), 6), earlier).execution == earlier


def test_chunk_is_halved_until_it_fits(monkeypatch):
    recipe = make_recipe(mlp(), "all", examples=12, micro_batch=4)
    forced = ExecutionConfig(devices=1, mode="vmap")
    work = workload(recipe, data(12), 16)
    needed = {size: measure.choose(forced, workload(recipe, data(12), size), None).cost.bytes for size in (4, 8)}
    monkeypatch.setattr(measure, "free_bytes", lambda: needed[4] + 1)
    monkeypatch.setattr(measure, "_upper_bound", lambda work: 16)
    assert measure.choose(forced, work, None).execution.size == 4
    assert needed[8] > needed[4]
    monkeypatch.setattr(measure, "free_bytes", lambda: 10)
    with pytest.raises(UserError, match="one member needs more than"):
        measure.choose(forced, work, None)


def images(channels: int) -> Task:
    """Returns a model of two 3x3 convolutions, large enough for their cost to show."""

    def init(key):
        stem, block, head = jax.random.split(key, 3)
        return {
            "stem": {"kernel": 0.1 * jax.random.normal(stem, (3, 3, 3, channels))},
            "block_0": {"kernel": 0.1 * jax.random.normal(block, (3, 3, channels, channels))},
            "head": {"kernel": 0.1 * jax.random.normal(head, (channels, 3))},
        }

    def apply(params, batch, dropout, keys):
        x = batch["x"]
        for name in ("stem", "block_0"):
            axes = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=axes)
            x = jax.nn.relu(x)
        return x.mean(axis=(1, 2)) @ params["head"]["kernel"]

    return mlp()._replace(init=init, apply=apply)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what is slow on CPU is not elsewhere")
def test_population_of_convolutions_is_looped_on_cpu():
    # A kernel for each member makes a grouped convolution of it: some six times slower with these shapes.
    recipe = make_recipe(images(16), "all", examples=32, micro_batch=16)
    found = measure.choose(ONE, workload(recipe, data(32, 16, 16, 3), 8), None).execution
    assert (found.mode, found.on_device) == ("loop", False)
    assert "stepped from the host" in found.reason


def test_mask_of_convolutions_is_seen_in_the_program():
    split = {name: jnp.asarray(array) for name, array in data(4, 8, 8, 3).items()}
    convolves = make_recipe(images(2), "all", examples=4, micro_batch=2)
    dense = make_recipe(mlp(), "head", examples=4, micro_batch=2)
    assert measure._convolves_on_cpu(workload(convolves, split, 1))
    assert not measure._convolves_on_cpu(workload(dense, data(4), 1, make_shared(dense)))


def test_flops_of_a_row_are_those_of_the_formula():
    # Dense layers forward and backward, head only: 2·B·in·out for the head's product and as much for its gradient,
    # and the forward products of the frozen layers.
    width, features, batch, members = 64, 96, 8, 4
    recipe = make_recipe(mlp(width, features), "head", examples=16, micro_batch=batch)
    forced = ExecutionConfig(devices=1, mode="vmap")
    cost = measure.choose(forced, workload(recipe, data(16, features), members, make_shared(recipe)), None).cost
    frozen = 2 * batch * (features * width + width * width)
    head = 2 * 2 * batch * width * 3 * members
    np.testing.assert_allclose(cost.train_step_flops, frozen + head, rtol=0.25)
