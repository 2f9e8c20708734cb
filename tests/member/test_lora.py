"""Adapters against formulas by hand, against solo runs without padding, and against weights that hold them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import LoraConfig
from finetune.errors import UserError
from finetune.member import lora
from finetune.member.epoch import epoch_order, train_one
from finetune.member.params import abstract, unflatten
from finetune.member.step import Recipe, effective, init_member, train_step
from finetune.population.parallel import ALL, MEMBERS, ORDER, OneDevice
from finetune.population.programs import train_members
from finetune.trials import hparams
from tests.helpers import adapted, tasks
from tests.helpers.training import EXAMPLES, population, relative, train_member

RANKS, ALPHAS, RATES = (1, 4, 16), (2.0, 16.0, 64.0), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
A, B = "lora/block_0/in/a", "lora/block_0/in/b"


def shared_of(recipe: Recipe) -> Any:
    """Returns the weights of the task without adapters, all but the head frozen."""
    leaves = {path: leaf for path, leaf in tasks.base_leaves(adapted.hooked()).items() if path not in recipe.paths}
    return jax.tree.map(jnp.asarray, tasks.make_shared(recipe)._replace(frozen=leaves))


def rows() -> list[dict[str, float]]:
    """Returns a trial for each rank, alpha and rate, with all that a padded column could leak into switched on."""
    more = {"weight_decay": 0.1, "l1": 1e-3, "l2": 0.01, "clip_norm": 0.5, "dropout": 0.2, "lora_ratio": 4.0}
    return [
        tasks.row(lora_rank=rank, lora_alpha=alpha, learning_rate=rate, seed=rank, **more)
        for rank in RANKS
        for alpha in ALPHAS
        for rate in RATES
    ]


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_members_of_all_ranks_equal_their_unpadded_solo_runs(float64: None, name: str) -> None:
    trials = rows() if name == "adamw" else rows()[:: len(RATES)]
    recipe = adapted.recipe_of(max(RANKS), dropout=True, name=name)
    members, _ = population(trials, recipe, shared_of(recipe))
    for rank in RANKS:
        alone = adapted.recipe_of(rank, dropout=True, name=name)
        assert alone.adapters.rank == rank
        init, step = (jax.jit(functools.partial(each, alone)) for each in (init_member, train_step))
        for i, row in enumerate(trials):
            if row["lora_rank"] != rank:
                continue
            member = init(shared_of(alone), tasks.scalars(**row))
            end = train_member(alone, shared_of(alone), member, 2, step)[-1]
            found = lora.of_rank({path: leaf[i] for path, leaf in members.params.items()}, rank)
            for path in alone.paths:
                assert found[path].shape == end.params[path].shape
                assert relative(found[path], end.params[path]) < 1e-10, (path, row)
            for path in (A, B):  # what pads a member is still zero
                padding = members.params[path][i][:, rank:] if path == A else members.params[path][i][rank:]
                assert not padding.any()
    assert relative(members.params[B][0], members.params[B][-1]) > 1e-3


def test_a_is_uniform_and_a_member_starts_as_its_base_model(float64: None) -> None:
    recipe = adapted.recipe_of(16)
    member = tasks.start(recipe, shared_of(recipe), lora_rank=16)
    a, bound = np.asarray(member.params[A]), adapted.WIDTH**-0.5
    assert a.shape == (adapted.WIDTH, 16)
    assert 0.9 * bound < np.abs(a).max() <= bound
    assert abs(a.std() - bound / 3**0.5) < 0.1 * bound  # of a uniform distribution
    assert len(np.unique(a)) == a.size
    assert not member.params[B].any()
    other = tasks.start(recipe, shared_of(recipe), lora_rank=16, seed=1)
    assert not np.isclose(a, other.params[A]).any()
    batch = {"x": tasks.data(4)["x"]}
    leaves = {**shared_of(recipe).frozen, **member.params}
    base = adapted.hooked().apply(
        unflatten({path: leaf for path, leaf in leaves.items() if "lora" not in path}), batch, 0.0, None
    )
    np.testing.assert_array_equal(recipe.task.apply(unflatten(leaves), batch, 0.0, None), base)


@pytest.mark.parametrize("scaling, wanted", [("alpha/rank", 6.0), ("alpha/sqrt(rank)", 12.0)])
def test_adapter_by_hand_and_merged(float64: None, scaling: str, wanted: float) -> None:
    recipe = adapted.recipe_of(8, scaling=scaling)
    row = tasks.row(lora_rank=4, lora_alpha=24.0)
    random = np.random.default_rng(3)
    leaves = {path: random.normal(size=shape.shape) for path, shape in abstract(recipe.task).items()}
    batch = {"x": tasks.data(5)["x"]}
    run = effective(recipe, jax.tree.map(jnp.asarray, leaves), tasks.scalars(**row))
    found = recipe.task.apply(unflatten(run), batch, 0.0, None)

    x = np.tanh(batch["x"] @ leaves["stem/kernel"] + leaves["stem/bias"])
    y = x
    for layer in adapted.LAYERS:
        a, b = leaves[f"lora/{layer}/a"][:, :4], leaves[f"lora/{layer}/b"][:4]
        y = y @ leaves[f"{layer}/kernel"] + leaves[f"{layer}/bias"] + wanted * (y @ a) @ b
        y = np.tanh(y) if layer == adapted.LAYERS[0] else y
    expected = (x + y) @ leaves["head/kernel"] + leaves["head/bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)

    whole = lora.merged(lora.of_rank(leaves, 4), row, scaling)
    assert whole.keys() == abstract(adapted.hooked()).keys()
    np.testing.assert_allclose(adapted.hooked().apply(unflatten(whole), batch, 0.0, None), expected, rtol=1e-10)


def test_one_update_with_lora_plus_by_hand(float64: None) -> None:
    recipe = adapted.recipe_of(4, name="sgd", schedule="constant")
    changes = {"lora_rank": 2, "lora_alpha": 3.0, "lora_ratio": 16.0, "momentum": 0.0, "warmup_fraction": 0.0}
    changes |= {"learning_rate": 0.05, "weight_decay": 0.3}
    member = tasks.start(recipe, shared_of(recipe), **changes)
    random = np.random.default_rng(5)
    start = {path: np.array(leaf) for path, leaf in member.params.items()}
    start[B][:2] = random.normal(size=start[B][:2].shape)
    member = member._replace(params=jax.tree.map(jnp.asarray, start))
    split = tasks.data(EXAMPLES)
    end = train_member(recipe, shared_of(recipe), member, 1)[1].params

    # The gradients of A and B from that of the kernel: W + scale·A·B is what runs.
    frozen, factor = {path: np.asarray(leaf) for path, leaf in shared_of(recipe).frozen.items()}, 3.0 / 2
    index = epoch_order(0, 0, EXAMPLES, 4).examples[0]
    batch = {name: array[index] for name, array in split.items()}

    def loss(kernel: jax.Array) -> jax.Array:
        leaves = {**frozen, "head/kernel": start["head/kernel"], "head/bias": start["head/bias"]}
        task = adapted.hooked()
        outputs = task.apply(unflatten({**leaves, "block_0/in/kernel": kernel}), batch, 0.0, None)
        return task.loss(outputs, batch, jnp.float64(0)).mean()

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(frozen["block_0/in/kernel"] + factor * start[A] @ start[B])))
    of_a, of_b = factor * gradient @ start[B].T, factor * start[A].T @ gradient
    of_b[2:] = 0
    assert np.abs(of_a).max() > 1e-4
    np.testing.assert_allclose(end[A], start[A] - 0.05 * (of_a + 0.3 * start[A]), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(end[B], start[B] - 16 * 0.05 * (of_b + 0.3 * start[B]), rtol=1e-10, atol=1e-15)


def test_dropout_belongs_to_the_example() -> None:
    recipe = adapted.recipe_of(2, dropout=True)
    random = np.random.default_rng(3)
    params = unflatten({path: random.normal(size=one.shape) for path, one in abstract(recipe.task).items()})
    x, keys = tasks.data(6)["x"], jax.random.split(jax.random.key(0), 6)
    whole = recipe.task.apply(params, {"x": x}, 0.5, keys)
    np.testing.assert_allclose(recipe.task.apply(params, {"x": x[2:4]}, 0.5, keys[2:4]), whole[2:4], rtol=1e-5)
    assert not np.allclose(recipe.task.apply(params, {"x": x}, 0.0, None), whole)


@pytest.mark.parametrize(
    "targets, layers",
    [
        ("blocks", ["block_0/in", "block_0/out"]),
        ("block_0/out", ["block_0/out"]),
        ("stem + **/in", ["block_0/in", "stem"]),
    ],
)
def test_targets(targets: str, layers: list[str]) -> None:
    task = adapted.hooked()
    assert lora.adapters(LoraConfig(targets), "lora", task, abstract(task), 2).layers == layers


@pytest.mark.parametrize(
    "targets, rank, spec, said",
    [
        ("attention", 2, "lora", "lora.targets is 'attention': 'attention' hits no dense layer, allowed: blocks"),
        ("blocks", 19, "lora", "lora_rank is 19, allowed: 1 to 18"),
        ("blocks", 2, "lora+!**/a", "allowed: both or none"),
    ],
)
def test_what_cannot_be_adapted(targets: str, rank: int, spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        adapted.recipe_of(rank, spec, targets=targets)


def test_a_layer_without_a_hook_is_told() -> None:
    recipe = adapted.recipe_of(2, targets="stem")
    with pytest.raises(UserError, match="'stem', which is no dense layer that can be adapted"):
        jax.eval_shape(recipe.task.apply, jax.eval_shape(recipe.task.init, jax.random.key(0)), tasks.data(2), 0.0, None)


@pytest.mark.parametrize(
    "spec, wanted",
    [
        ("lora/block_0/in", {A, B}),
        ("lora+!lora/block_0/out", {A, B}),
        ("lora/block_0/in+stem/bias", {A, B, "stem/bias"}),
    ],
)
def test_a_spec_may_choose_adapters(spec: str, wanted: set[str]) -> None:
    recipe = adapted.recipe_of(2, spec)
    assert set(recipe.paths) == wanted | {"head/kernel", "head/bias"}
    assert recipe.adapters.layers == ["block_0/in"]


def test_a_frozen_kernel_is_multiplied_once_for_all_members() -> None:
    members, recipe = 3, adapted.recipe_of(2)
    stacked = hparams.stack([tasks.row(seed=seed, lora_rank=2) for seed in range(members)], members)
    start = jax.vmap(lambda each: init_member(recipe, shared_of(recipe), each))(stacked)
    step = train_members(recipe, OneDevice(), train_one, (MEMBERS, ALL, ALL, ORDER, ALL, ALL))
    order = epoch_order(0, 0, EXAMPLES, 4)
    arguments = start, shared_of(recipe), tasks.data(EXAMPLES), order, np.int32(0), np.int32(0)
    program = jax.jit(step).lower(*arguments).compile().as_text()
    products = [line for line in program.splitlines() if " dot(" in line]
    # The kernel [20, 18] of block_0/out, forwards [K·B, 18] and backwards [K·B, 20], without an axis of members.
    for columns, contracted in ((adapted.WIDTH, 0), (adapted.HIDDEN, 1)):
        wanted = f"f32[{members * 4},{columns}]"
        [found] = [line for line in products if wanted in line]
        assert "batch_dims" not in found
        assert f"rhs_contracting_dims={{{contracted}}}" in found
    assert not any(f"f32[{members},{size}]" in program for size in ("20,18", "18,20"))
