"""train_step and eval_step of ONE member: pure, un-jitted, unaware of populations and devices.

A member with batch size b = a·m reads micro-batches of m examples and updates after every a of them, and after the
last one of an epoch, with the mean gradient over the examples read since its last update: exactly the update of a run
with batch size b. Everything that may differ between members is an array in `Member`; `Recipe` holds what is built
into the program.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from finetune.config import OptimizerConfig
from finetune.jaxpr.random_numbers import with_draws
from finetune.member import lora
from finetune.member.metric import as_metric
from finetune.member.objective import TrainedLoss, penalty
from finetune.member.optimizer import make_optimizer, rate_factors, unit_schedule
from finetune.member.params import Leaves, flatten, live_state, partition, unflatten
from finetune.member.precision import widened
from finetune.member.rates import NO_RATES, Rates
from finetune.member.task import Batch, Task
from finetune.trials.hparams import Hparams

# Reasons for which a member is stopped, in the order in which they are looked for.
QUANTITIES = ("loss", "gradient", "parameters")

# (trainable leaves, frozen leaves, batch, dropout, keys) -> outputs, floating ones float32 or wider
Forward = Callable[[Leaves, Leaves, Batch, jax.Array | float, jax.Array | None], jax.Array]


class Recipe(NamedTuple):
    """What one compiled program is made of, the same for every member of a group."""

    task: Task
    forward: Forward  # of training
    evaluating_forward: Forward
    metric: str  # on the validation split, by which a member's best epoch is chosen
    paths: tuple[str, ...]  # of the leaves that train
    optimizer: OptimizerConfig
    decayed: frozenset[str]
    examples: int  # in the training split
    micro_batch: int  # examples; divides every member's batch size
    accumulates: bool  # some member's batch is larger than the micro-batch
    dropout: bool  # some member's rate is not zero; `forward` draws no masks otherwise
    seeds: int  # how many different ones the members have
    adapters: lora.Adapters = lora.NONE  # those of the task
    batch_axis: str | None = None  # name of the device axis over which a micro-batch is split
    rates: Rates = NO_RATES  # of leaves whose learning rate is multiplied
    mixes: bool = False  # the examples of a batch influence each other in training, so that none is split
    whole: bool = True  # the forward passes run the whole model, not the tail behind a trunk
    reestimate: int = 0  # micro-batches from which running averages are taken anew before an evaluation
    trained_loss: TrainedLoss | None = None  # see `objective.trained_loss`
    state: tuple[str, ...] = ()  # paths of what each batch changes; if any, `forward` gives (outputs, {path: new})

    @property
    def own(self) -> frozenset[str]:
        """Paths of all leaves that a member has for itself."""
        return frozenset(self.paths + self.state)


class Shared(NamedTuple):
    """Arrays that all members read and none changes: never stacked."""

    frozen: Leaves
    pretrained: Leaves  # where the trained leaves that have pretrained weights start
    seeds: jax.Array | None = None  # int32, all that the members of a population have; None: a member's own
    class_weights: Any = None  # float [C], see `objective.emphasis`; None: all 1


class Best(NamedTuple):
    """The parameters and state at the member's best epoch so far; `epoch` 0 = none yet."""

    params: Leaves
    value: jax.Array  # of the metric that is chosen on; larger is better
    epoch: jax.Array


class Member(NamedTuple):
    """A trial while it trains: scalars and the leaves that train."""

    hparams: Hparams
    params: Leaves
    optimizer_state: optax.OptState
    updates: jax.Array  # int32, done so far
    gradient_sum: Leaves  # over the examples since the last update; empty if every micro-batch ends with one
    gradient_examples: jax.Array
    loss_sum: jax.Array  # over the examples of this epoch
    loss_examples: jax.Array
    diverged_update: jax.Array  # int32, -1 = it has not
    diverged_quantity: jax.Array  # int32, index into QUANTITIES
    best: Best
    state: Leaves  # what is no parameter and changes in training; {} for most models

    @property
    def leaves(self) -> Leaves:
        """All that this member evaluates with and others do not share."""
        return {**self.params, **self.state}


class Position(NamedTuple):
    """Where in the training a micro-batch lies; the same for all members. Scalars."""

    epoch: jax.Array  # int32, 0-based
    micro: jax.Array  # int32, 0-based within the epoch
    last: jax.Array  # bool, whether the epoch ends with it


def full_forward(task: Task) -> Forward:
    """Returns the forward pass that runs the whole model on trained and frozen leaves."""

    def forward(params: Leaves, frozen: Leaves, batch: Batch, dropout: Any, keys: jax.Array | None) -> Any:
        return widened(task.apply(unflatten({**frozen, **params}), batch, dropout, keys))

    return forward


def training_forward(task: Task, paths: Iterable[str], dropout: bool = True) -> Forward:
    """Returns the forward pass of training `paths`; that of a model with state gives (outputs, {path: new state}).

    dropout: False where every member's rate is 0, which the program then knows, so that it draws no mask.
    """
    update, trained, apply = task.update, frozenset(paths), full_forward(task)

    def forward(params: Leaves, frozen: Leaves, batch: Batch, rate: Any, keys: jax.Array | None) -> Any:
        # NumPy's zero, for a user's function may use what arrays have.
        leaves, rate = {**frozen, **params}, rate if dropout else jnp.result_type(rate).type(0)
        if update is None:
            return apply(params, frozen, batch, rate, keys)
        outputs, state = update(unflatten(leaves), batch, rate, keys, trained)
        return (widened(outputs), state) if live_state(task, leaves, trained) else widened(outputs)

    return forward


def seed_key(seed: jax.Array, purpose: int) -> jax.Array:
    """Returns the random key of a member for a purpose: 0 initialisation, 1 dropout."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), purpose)


def init_member(recipe: Recipe, shared: Shared, hparams: Hparams) -> Member:
    """Returns a member before its first update: pretrained leaves where there are any, others drawn by its seed."""
    fresh = flatten(recipe.task.init(seed_key(hparams.seed, 0)))
    # Copied, so that no buffer of a member, which a step may reuse, is also another's.
    leaves = {path: jnp.copy(shared.pretrained.get(path, fresh[path])) for path in recipe.paths + recipe.state}
    params, state = partition(lora.masked(leaves, hparams), frozenset(recipe.paths))
    scalar = jnp.zeros((), hparams.learning_rate.dtype)
    count = jnp.zeros((), jnp.int32)
    optimizer = make_optimizer(recipe.optimizer, hparams, scalar, dict.fromkeys(recipe.paths, True))
    return Member(
        hparams=hparams,
        params=params,
        optimizer_state=optimizer.init(widened(params)),
        updates=count,
        gradient_sum=jax.tree.map(jnp.zeros_like, widened(params)) if recipe.accumulates else {},
        gradient_examples=scalar,
        loss_sum=scalar,
        loss_examples=scalar,
        diverged_update=count - 1,
        diverged_quantity=count,
        best=Best(jax.tree.map(jnp.copy, leaves), scalar - jnp.inf, count),
        state=state,
    )


def train_step(recipe: Recipe, member: Member, shared: Shared, batch: Batch, position: Position) -> Member:
    """Returns `member` after one micro-batch; unchanged if it has finished or diverged.

    `batch` holds the arrays of the task, and "index" int32 [m], each example's place in the training split, and
    "weight" [m], 0 for padding and else 1.
    """
    loss_sum, gradients, state = _loss_and_gradients(recipe, member, shared, batch, position)
    examples = _all_sum(recipe, batch["weight"].sum().astype(loss_sum.dtype))
    if recipe.accumulates:
        gradients = jax.tree.map(jnp.add, member.gradient_sum, gradients)
    gradient_examples = member.gradient_examples + examples
    params, optimizer_state, norm = _update(recipe, member, shared, gradients, gradient_examples)

    every = member.hparams.batch_size // recipe.micro_batch
    updates_now = ((position.micro + 1) % every == 0) | position.last
    finite = jnp.stack([jnp.isfinite(loss_sum), jnp.isfinite(norm), all_finite(params | state) | ~updates_now])
    active = (position.epoch < member.hparams.epochs) & (member.diverged_update < 0)
    reads, diverges = active & finite.all(), active & ~finite.all()
    updates = reads & updates_now
    carries = reads & ~updates_now
    return member._replace(
        params=select(updates, params, member.params),
        optimizer_state=select(updates, optimizer_state, member.optimizer_state),
        updates=member.updates + updates,
        gradient_sum=jax.tree.map(lambda leaf: jnp.where(carries, leaf, 0), gradients) if recipe.accumulates else {},
        gradient_examples=jnp.where(carries, gradient_examples, 0),
        loss_sum=jnp.where(reads, member.loss_sum + loss_sum, member.loss_sum),
        loss_examples=jnp.where(reads, member.loss_examples + examples, member.loss_examples),
        diverged_update=jnp.where(diverges, member.updates, member.diverged_update),
        diverged_quantity=jnp.where(diverges, jnp.argmin(finite).astype(jnp.int32), member.diverged_quantity),
        state=select(reads, state, member.state),
    )


def _loss_and_gradients(
    recipe: Recipe, member: Member, shared: Shared, batch: Batch, position: Position
) -> tuple[jax.Array, Leaves, Leaves]:
    """Returns the sum of the losses over all devices, the gradient of what is minimised, and the new state."""
    hparams = member.hparams
    seeds = hparams.seed[None] if shared.seeds is None else shared.seeds

    def forward(params: Leaves) -> Any:
        leaves = effective(recipe, {**params, **member.state}, hparams)
        arguments = leaves, shared.frozen, batch, hparams.dropout
        keys = jax.vmap(_dropout_keys, in_axes=(0, None, None))(seeds, position.epoch, batch["index"])
        return with_draws(recipe.forward, *arguments, keys=keys, place=jnp.argmax(seeds == hparams.seed))

    def loss_sum(params: Leaves) -> tuple[jax.Array, tuple[jax.Array, Leaves]]:
        outputs, state = forward(params) if recipe.state else (forward(params), {})
        losses = widened(recipe.task.loss(outputs, batch, hparams.label_smoothing))
        state = {path: leaf.astype(member.state[path].dtype) for path, leaf in state.items()}
        value = jnp.where(batch["weight"] > 0, losses, 0).sum()
        if recipe.trained_loss is None:
            return value, (value, state)
        losses = widened(recipe.trained_loss(outputs, batch, hparams, shared.class_weights))
        return jnp.where(batch["weight"] > 0, losses, 0).sum(), (value, state)

    (_, (value, state)), gradients = jax.value_and_grad(loss_sum, has_aux=True)(member.params)
    return _all_sum(recipe, value), jax.tree.map(lambda leaf: _all_sum(recipe, leaf), widened(gradients)), state


def _dropout_keys(seed: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the random key of each example [B] in an epoch."""
    epoch_key = jax.random.fold_in(seed_key(seed, 1), epoch)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(epoch_key, index)


def _update(
    recipe: Recipe, member: Member, shared: Shared, gradient_sum: Leaves, examples: jax.Array
) -> tuple[Leaves, optax.OptState, jax.Array]:
    """Returns (params, optimizer state) after an update with the mean gradient, and its norm, penalties included."""
    hparams, before = member.hparams, widened(member.params)

    def pulling(params: Leaves) -> jax.Array:
        return penalty(lora.masked(params, hparams), shared.pretrained, hparams, recipe.decayed)

    pull = jax.grad(pulling)(before)
    gradients = jax.tree.map(lambda total, pulled: total / examples.astype(total.dtype) + pulled, gradient_sum, pull)
    total = hparams.epochs.astype(hparams.learning_rate.dtype) * -(-recipe.examples // hparams.batch_size)
    scale = unit_schedule(recipe.optimizer.schedule, member.updates, total, hparams.warmup_fraction)
    decays = {path: path in recipe.decayed for path in gradients}
    factors = rate_factors(hparams, recipe.rates, decays)
    optimizer = make_optimizer(recipe.optimizer, hparams, scale, decays, factors)
    changes, optimizer_state = optimizer.update(gradients, member.optimizer_state, before)
    params = {
        path: leaf.astype(member.params[path].dtype) for path, leaf in optax.apply_updates(before, changes).items()
    }
    return params, optimizer_state, optax.tree.norm(gradients)


def effective(recipe: Recipe, params: Leaves, hparams: Hparams) -> Leaves:
    """Returns a member's leaves as its model runs them: what depends on its hyperparameters is worked in."""
    return lora.effective(params, hparams, recipe.adapters.scaling)


def eval_step(recipe: Recipe, params: Leaves, shared: Shared, batch: Batch) -> dict[str, Any]:
    """Returns the sums of the loss, without smoothing, and of every mean metric over a batch, and its "examples".

    `params` are `effective`. "gathered" holds what metrics of a whole split need of this batch, if there are such: a
    tuple of one or none.
    """
    outputs = recipe.evaluating_forward(params, shared.frozen, batch, 0.0, None)
    values = {"loss": widened(recipe.task.loss(outputs, batch, jnp.zeros((), outputs.dtype)))}
    metrics = {name: as_metric(metric) for name, metric in recipe.task.metrics.items()}
    values |= {name: widened(metric.of(outputs, batch)) for name, metric in metrics.items() if not metric.of_split}
    weight = batch["weight"]
    kept = {"outputs": outputs, "label": batch["label"], "weight": weight}
    gathered = (kept,) if any(metric.of_split for metric in metrics.values()) else ()
    sums = {name: jnp.where(weight > 0, value, 0).sum() for name, value in values.items()}
    return {**sums, "examples": weight.sum(), "gathered": gathered}


def keep_best(member: Member, value: jax.Array, epoch: jax.Array) -> Member:
    """Returns the member with its best parameters replaced by the present ones if `value` is larger; ties keep."""
    better = (value > member.best.value) & (epoch <= member.hparams.epochs) & (member.diverged_update < 0)
    return member._replace(best=select(better, Best(member.leaves, value, epoch), member.best))


def select(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Returns `yes` or `no`, trees alike, leaf by leaf with `where`: what is not chosen cannot leak as 0·NaN does."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def all_finite(leaves: Leaves) -> jax.Array:
    """Says whether no leaf holds a NaN or an infinity."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves.values()]).all()


def _all_sum(recipe: Recipe, value: jax.Array) -> jax.Array:
    return value if recipe.batch_axis is None else jax.lax.psum(value, recipe.batch_axis)
