"""What is minimised: the loss of an example, the penalties of a member's parameters, and the metrics."""

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from finetune.config import TEMPERATURE
from finetune.errors import UserError, one_of
from finetune.member import entity, metric, span
from finetune.member.metric import Metrics
from finetune.member.params import Leaves
from finetune.member.precision import widened
from finetune.member.task import Batch, Params, Task
from finetune.trials.hparams import Hparams


class Objective(NamedTuple):
    """What a task minimises and is judged by; fields mean what they mean in `Task`."""

    loss: Callable[[Any, Batch, jax.Array], jax.Array]
    metrics: Metrics


class OwnObjective(NamedTuple):
    """What of a kind of task's objective is the user's own: a loss in place of its own, and metrics besides."""

    loss: Callable[[Any, Batch, jax.Array], jax.Array] | None = None
    metrics: Metrics = {}  # noqa: RUF012 (nothing changes it)


NO_OBJECTIVE = OwnObjective()


class Kind(NamedTuple):
    """A kind of task: its loss, the metrics that it has by name, and those that are always reported.

    usual: what it is chosen on where no metric is named, the first of them that it has.
    reads: what of a batch the loss reads besides the outputs.
    """

    loss: Callable[[Any, jax.Array, jax.Array], jax.Array]  # (outputs, label, label_smoothing) -> [B]
    metrics: Metrics
    reported: tuple[str, ...]
    usual: tuple[str, ...]
    reads: str = "label"


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a kind of task as a `Task` has it; two of the same kind and unit are equal."""

    of: Callable[[Any, jax.Array, jax.Array], jax.Array]
    scale: float = 1.0  # unit of a regression's loss, which is a squared error
    reads: str = "label"  # as of `Kind`

    def __call__(self, outputs: Any, batch: Batch, label_smoothing: jax.Array) -> jax.Array:
        losses = self.of(outputs, batch[self.reads], label_smoothing)
        return losses if self.scale == 1.0 else losses / self.scale**2


def make_objective(
    task: str,
    chosen_on: str = "",
    others: tuple[str, ...] = (),
    scale: float = 1.0,
    classes: Sequence[str] | None = (),
    own: OwnObjective = NO_OBJECTIVE,
) -> Objective:
    """Returns the objective of a kind of task in KINDS, judged by its usual metrics, `chosen_on` and `others`.

    scale: unit of a regression's loss. classes: of the data; None where they are not known yet, to see whether the task
    may have the metrics. own: of the user. Raises UserError for a metric that the task lacks.
    """
    kind, named = KINDS[task], _named(task, classes)
    if taken := sorted(own.metrics.keys() & named.keys()):
        raise UserError(f"metrics holds {taken[0]!r}, which {task} has itself, allowed: another name")
    named = {**named, **own.metrics}
    if classes is not None and entity.NAME in {chosen_on, *others} - named.keys() and task == "tokens":
        raise UserError(
            f"evaluation.metric or metrics name {entity.NAME}, allowed where every tag is O, B-TYPE or I-TYPE; "
            f"tags here: {', '.join(classes)[:80]}"
        )
    if chosen_on not in ("", metric.LOSS, *named):
        raise one_of("evaluation.metric", chosen_on, [metric.LOSS, *named])
    reported = (name for name in (*kind.reported, *kind.usual) if name in named)
    asked = dict.fromkeys((*reported, *own.metrics, *others, *(() if chosen_on in ("", metric.LOSS) else (chosen_on,))))
    return Objective(own.loss or Loss(kind.loss, scale, kind.reads), metric.choose(named, tuple(asked)))


def _named(task: str, classes: Sequence[str] | None) -> Metrics:
    """Returns the metrics of a kind of task with these classes, by name."""
    if task != "tokens" or not (classes is None or entity.is_iob(classes)):
        return KINDS[task].metrics
    return KINDS[task].metrics | {entity.NAME: entity.f1(classes or ())}


def is_of_classes(task: Task) -> bool:
    """Says whether the loss of a task is the cross-entropy of one class an example, which can be emphasised."""
    return isinstance(task.loss, Loss) and task.loss.of is cross_entropy


def is_contrastive(task: Task) -> bool:
    """Says whether the loss of a task compares the examples of a batch with each other by their similarities."""
    return isinstance(task.loss, Loss) and task.loss.of is in_batch_cross_entropy


def usual_metric(task: str, metrics: Container[str]) -> str:
    """Returns what a kind of task with these metrics is chosen on where none is named."""
    usual = KINDS[task].usual
    return next((name for name in usual if name in metrics), usual[-1])


class Target(NamedTuple):
    """Mean and standard deviation of a regression's training targets: what the model's own output is in units of."""

    mean: float
    scale: float


def in_units(task: Task, target: Target) -> Task:
    """Returns a regression whose outputs are in the target's units; its parameters are those of the standardised one.

    So that rates and penalties mean the same whatever the unit, while loss, metrics and predictions are comparable.
    """

    def apply(params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        return widened(task.apply(params, batch, dropout, keys)) * target.scale + target.mean

    return task._replace(apply=apply)


def classification() -> Objective:
    """Returns the objective of one label an example, "label" int32 [B], and logits [B, C], judged by accuracy."""
    return make_objective("classification", "accuracy")


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the cross-entropy of each example [B] of `logits` [B, C] with integer `labels` [B].

    The target gives `label_smoothing` of its mass to the uniform distribution over all C classes
    (Szegedy et al. 2016, section 7).
    """
    log_probabilities = jax.nn.log_softmax(logits)
    labels = labels.astype(jnp.int32)[:, None]
    of_label = jnp.take_along_axis(log_probabilities, labels, axis=-1)[:, 0]
    return -(1 - label_smoothing) * of_label - label_smoothing * log_probabilities.mean(axis=-1)


def emphasis(
    logits: jax.Array, labels: jax.Array, class_weights: jax.Array | None, focal_gamma: jax.Array
) -> jax.Array:
    """Returns what the loss of each example [B] is multiplied by in training: w·(1 − p)^focal_gamma.

    p is the probability of its label, w the entry of `class_weights` [C] of that, 1 without. Lin et al. 2017, "Focal
    loss for dense object detection", equation 5; differentiated as it stands there, p included.
    """
    labels = labels.astype(jnp.int32)
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    # log(1 − p) without a difference from 1, which would be 0 for what is learnt well.
    others = jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, logits), axis=-1)
    factor = jnp.exp(focal_gamma.astype(logits.dtype) * (others - jax.nn.logsumexp(logits, axis=-1)))
    return factor if class_weights is None else factor * class_weights.astype(logits.dtype)[labels]


# (outputs, batch, hyperparameters, class weights) -> loss of each example [B]
TrainedLoss = Callable[[Any, Batch, Hparams, Any], jax.Array]


def trained_loss(task: Task, emphasises: bool) -> TrainedLoss | None:
    """Returns what training minimises where that is not the loss that is told; None where it is.

    emphasises: whether there are class weights, or some member's focal_gamma is not zero.
    """

    def emphasised(outputs: Any, batch: Batch, hparams: Hparams, class_weights: Any) -> jax.Array:
        losses = task.loss(outputs, batch, hparams.label_smoothing)
        return losses * emphasis(outputs, batch["label"], class_weights, hparams.focal_gamma)

    def tempered(outputs: Any, batch: Batch, hparams: Hparams, class_weights: Any) -> jax.Array:
        del class_weights
        return in_batch_cross_entropy(outputs, batch["weight"], hparams.label_smoothing, hparams.temperature)

    return tempered if is_contrastive(task) else emphasised if emphasises else None


def in_batch_cross_entropy(
    outputs: jax.Array, weight: jax.Array, label_smoothing: jax.Array | float = 0.0,
    temperature: jax.Array | float = TEMPERATURE,
) -> jax.Array:  # fmt: skip
    """Returns the loss of each example [B] of finding its second text among those of the batch; outputs [B, 2, D].

    The cross-entropy of cosines over `temperature`: Henderson et al. 2017, arXiv 1705.00652, section 4.4; there are no
    labels to smooth. An example whose weight [B] is 0 is no other's candidate.
    """
    del label_smoothing
    first, second = (metric.unit(outputs[:, place]) for place in (0, 1))
    scores = first @ second.T / temperature
    own = jnp.eye(len(scores), dtype=bool)
    candidates = jnp.where((weight[None] > 0) | own, scores, -jnp.inf)
    return jax.nn.logsumexp(candidates, axis=1) - jnp.diagonal(scores)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the mean over classes of the binary cross-entropy of each example [B]; labels are multi-hot [B, C].

    `label_smoothing` s moves the targets 0 and 1 to s/2 and 1 − s/2.
    """
    targets = labels.astype(logits.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits)).mean(axis=-1)


def squared_error(outputs: jax.Array, targets: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the squared error of each example [B] of outputs [B, 1]; there are no labels to smooth."""
    del label_smoothing
    return jnp.square(outputs[:, 0] - targets.astype(outputs.dtype))


def token_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the mean cross-entropy of the labelled tokens of each example [B]; 0 for one without any.

    logits [B, T, C], labels [B, T]; those below 0 are of tokens without a label. Smoothing as in `cross_entropy`.
    """
    labelled = labels >= 0
    losses = jax.vmap(cross_entropy, in_axes=(0, 0, None))(logits, jnp.maximum(labels, 0), label_smoothing)
    return jnp.where(labelled, losses, 0).sum(axis=1) / jnp.maximum(labelled.sum(axis=1), 1).astype(losses.dtype)


KINDS = {
    "classification": Kind(cross_entropy, metric.CLASSIFICATION, ("accuracy",), ("accuracy",)),
    "multilabel": Kind(binary_cross_entropy, metric.MULTILABEL, ("accuracy", "micro_f1", "macro_f1"), ("micro_f1",)),
    "regression": Kind(squared_error, metric.REGRESSION, ("rmse", "spearman"), ("rmse",)),
    "tokens": Kind(token_cross_entropy, metric.TOKENS, ("accuracy", "macro_f1"), (entity.NAME, "accuracy")),
    "choice": Kind(cross_entropy, metric.CHOICE, ("accuracy",), ("accuracy",)),
    "question_answering": Kind(span.cross_entropy, span.METRICS, ("exact_match", "f1"), ("f1",)),
    "contrastive": Kind(
        in_batch_cross_entropy, metric.CONTRASTIVE, ("accuracy", "reciprocal_rank"), ("accuracy",), reads="weight"
    ),
}


def penalty(params: Leaves, pretrained: Leaves, hparams: Hparams, decayed: frozenset[str]) -> jax.Array:
    """Returns l1·|p|₁ + ½·l2·|p|² over `decayed` leaves + ½·l2_sp·|p − p₀|² over those with pretrained weights p₀.

    L2-SP: Li et al. 2018, "Explicit inductive bias for transfer learning", equation 3. A new head has no p₀.
    """
    total = jnp.zeros((), dtype=hparams.l2.dtype)
    for path, leaf in params.items():
        if path in decayed:
            total += hparams.l1 * jnp.abs(leaf).sum() + 0.5 * hparams.l2 * jnp.square(leaf).sum()
        if path in pretrained:
            total += 0.5 * hparams.l2_sp * jnp.square(leaf - pretrained[path]).sum()
    return total
