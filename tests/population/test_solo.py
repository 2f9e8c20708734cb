"""Every member of a population equals the run of its trial alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member.epoch import epoch_order
from finetune.member.step import Member, Position, eval_step, init_member, train_step
from finetune.trials.hparams import NAMES
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, STEM, VALIDATION, population, recipe_for, relative

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
    "focal_gamma": {"focal_gamma": 2.0},
    "clip_norm": {"clip_norm": 0.2},
    "layer_decay": {"layer_decay": 0.5},
    "beta1": {"beta1": 0.5},
    "beta2": {"beta2": 0.9},
    "batch_size": {"batch_size": 12},
    "epochs": {"epochs": 1},
    "seed": {"seed": 5},
    "everything": {
        "learning_rate": 0.02, "warmup_fraction": 0.2, "weight_decay": 0.1, "l2": 0.01, "l1": 0.001, "l2_sp": 0.1,
        "dropout": 0.3, "label_smoothing": 0.1, "focal_gamma": 1.0, "clip_norm": 0.5, "layer_decay": 0.9,
        "beta1": 0.8, "beta2": 0.99, "batch_size": 12, "seed": 3,
    },
}  # fmt: skip
SGD_AXES = {"none": {"momentum": 0.0}, "momentum": {"momentum": 0.8}, "batch_size": {"batch_size": 4}}


class Solo:
    """Trains one trial alone, stepped in Python with its own batch size; compiles once for each recipe."""

    def __init__(self, **optimizer: Any):
        self._optimizer = optimizer
        self._steps: dict[Any, Any] = {}

    def run(self, row: dict[str, float], pretrained: tuple[str, ...]) -> tuple[Member, dict[str, float]]:
        """Returns the trained member and its metrics on the validation split."""
        key = (row["batch_size"], row["dropout"] > 0, row["layer_decay"] < 1, row["focal_gamma"] > 0)
        if key not in self._steps:
            recipe = recipe_for([row], **self._optimizer)
            assert not recipe.accumulates
            functions = (jax.jit(functools.partial(each, recipe)) for each in (init_member, train_step, eval_step))
            self._steps[key] = recipe, *functions
        recipe, init, step, evaluate = self._steps[key]
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
        sums = evaluate(member.params, shared, validation)
        return member, {name: float(sums[name]) / VALIDATION for name in ("loss", "accuracy")}


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
    adapters = {"lora_rank", "lora_alpha", "lora_ratio"}  # in test_lora.py
    assert {*AXES, *SGD_AXES, *adapters, "temperature", "data_seed"} - {"none", "everything"} == set(NAMES)


def test_population_equals_solo_runs_in_double_precision() -> None:
    with jax.enable_x64(True):
        check_against_solo(AXES, 1e-10, data_seed=0)


def test_population_equals_solo_runs_in_single_precision() -> None:
    axes = {axis: {"epochs": 1} | changes for axis, changes in AXES.items() if axis != "epochs"}
    check_against_solo(axes, 1e-5, data_seed=0)


def test_population_with_momentum_and_another_order_equals_solo_runs() -> None:
    with jax.enable_x64(True):
        multipliers = ("stem=0.5", "**/bias=3", "block_0=0")
        optimizer = {"name": "sgd", "schedule": "linear", "multipliers": multipliers}
        check_against_solo(SGD_AXES, 1e-10, data_seed=4, **optimizer)
