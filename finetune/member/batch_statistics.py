"""Running averages of batch normalisation: how far they lag behind the batches, and how they are taken anew.

A running average with momentum 0.99 holds two thirds of its first value after 40 updates. Evaluation by it then says
nothing of the parameters, whose loss by the statistics of a batch may be far lower.
"""

import jax
import jax.numpy as jnp

from finetune.member.params import Leaves
from finetune.member.step import Member, Position, Recipe, Shared, all_finite, effective, eval_step, seed_key, select
from finetune.member.task import Batch

RUNNING, OF_BATCH = "running_loss", "batch_loss"  # of one batch, by running averages and by its own statistics


def losses(recipe: Recipe, params: Leaves, shared: Shared, batch: Batch) -> dict[str, jax.Array]:
    """Returns the mean loss over a batch of `effective` parameters as RUNNING and as OF_BATCH, without dropout.

    {} where a model has no running averages that change, or runs behind a trunk.
    """
    if not recipe.state or not recipe.whole:
        return {}

    def by_batch(params: Leaves, frozen: Leaves, batch: Batch, rate: object, keys: object) -> jax.Array:
        del rate, keys
        return recipe.forward(params, frozen, batch, 0.0, _keys(batch))[0]

    sums = {
        name: eval_step(recipe._replace(evaluating_forward=forward), params, shared, batch)
        for name, forward in ((RUNNING, recipe.evaluating_forward), (OF_BATCH, by_batch))
    }
    return {name: each["loss"] / each["examples"] for name, each in sums.items()}


def reestimate_step(recipe: Recipe, member: Member, shared: Shared, batch: Batch, position: Position) -> Member:
    """Returns `member` with the averages of an epoch's micro-batches up to this one; unchanged if it does not train.

    Means and variances are those of all examples that were read (Wu & Johnson 2021, "Rethinking Batch in BatchNorm",
    section 3), in training mode without dropout. Of state that is no mean beside a variance nothing changes.
    """
    leaves = effective(recipe, member.params, member.hparams)

    def remembered(state: Leaves) -> Leaves:
        return dict(recipe.forward({**leaves, **state}, shared.frozen, batch, 0.0, _keys(batch))[1])

    # An average becomes momentum·average + (1 − momentum)·statistic: here of an average that is 0.
    zeros = jax.tree.map(jnp.zeros_like, member.state)
    found, momentum = jax.jvp(remembered, (zeros,), (jax.tree.map(jnp.ones_like, zeros),))
    statistics = {path: leaf / jnp.where(momentum[path] < 1, 1 - momentum[path], 1) for path, leaf in found.items()}
    now = batch["weight"].sum()
    share = now / (position.micro * recipe.micro_batch + now)
    state = dict(member.state)
    for path in member.state:
        layer, _, name = path.rpartition("/")
        if name == "mean" and f"{layer}/var" in state:
            variance = f"{layer}/var"
            old, new = ((each[path], each[variance]) for each in (state, statistics))
            state[path], state[variance] = _merged(old, new, share.astype(old[0].dtype))
    trains = (position.epoch < member.hparams.epochs) & (member.diverged_update < 0) & all_finite(state)
    return member._replace(state=select(trains, state, member.state))


def _merged(
    old: tuple[jax.Array, jax.Array], new: tuple[jax.Array, jax.Array], share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance of two sets of examples, given those of each, and the second one's share of both."""
    (mean, variance), (other, others) = old, new
    away = other - mean
    return mean + share * away, variance + share * (others - variance) + share * (1 - share) * jnp.square(away)


def _keys(batch: Batch) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(seed_key(jnp.zeros((), jnp.int32), 1), batch["index"])
