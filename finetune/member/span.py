"""Answers that are a span of a text's tokens: the loss, the best span, and what of it is right."""

from typing import Any

import jax
import jax.numpy as jnp

from finetune.data_config import LONGEST_ANSWER as LONGEST
from finetune.member.metric import Metrics


def cross_entropy(outputs: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the mean cross-entropy of the first and the last token of each example's answer [B].

    outputs [B, T, 2]; labels [B, T, 2], 1 at these tokens, 0 where one could be, -1 elsewhere: those have no share. An
    example without an answer, one that is cut off, has loss 0. There are no labels to smooth.
    """
    del label_smoothing
    possible = jnp.where(labels >= 0, outputs, _lowest(outputs))
    of_label = jnp.where(labels == 1, jax.nn.log_softmax(possible, axis=1), 0).sum(axis=1)
    return -of_label.mean(axis=-1) * (labels == 1).any(axis=(1, 2)).astype(outputs.dtype)


def best(outputs: jax.Array, first: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first and the last token, int32 [B], of the span of at most LONGEST tokens with the largest sum.

    outputs [B, T, 2]; first, last [B, T]: 0 or more where a span may start and end.
    """
    tokens, lowest = outputs.shape[1], _lowest(outputs)
    starts = jnp.where(first >= 0, outputs[..., 0], lowest)
    ends = jnp.pad(jnp.where(last >= 0, outputs[..., 1], lowest), ((0, 0), (0, LONGEST)), constant_values=lowest)
    sums = starts[..., None] + jnp.stack([ends[:, far : far + tokens] for far in range(LONGEST)], axis=-1)
    place = sums.reshape(len(sums), -1).argmax(axis=1)
    start = place // LONGEST
    return start, jnp.minimum(start + place % LONGEST, tokens - 1)


def _lowest(outputs: jax.Array) -> Any:
    return jnp.finfo(outputs.dtype).min / 4  # two of them can be added


def _said(outputs: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the places in "counted" before and behind the words that are said, int32 [B, 1, 1]."""
    tokens = best(outputs, batch["begins"], batch["ends"])
    found = (jnp.take_along_axis(batch[name], token[:, None], axis=1)[:, 0]
             for name, token in zip(("begins", "ends"), tokens, strict=True))  # fmt: skip
    begin, end = (jnp.maximum(each, 0)[:, None, None] for each in found)
    return begin, jnp.maximum(begin, end)


def exact_match(outputs: jax.Array, batch: Any) -> jax.Array:
    """Returns 1 for each example [B] of which what counts of the words that are said is that of an answer, else 0."""
    (begin, end), answers = _said(outputs, batch), batch["answers"]
    sizes = (answers >= 0).sum(axis=-1, keepdims=True)
    places = begin + jnp.arange(answers.shape[-1])[None, None]
    counted = batch["counted"]
    at = jnp.take_along_axis(counted, jnp.clip(places, 0, counted.shape[1] - 1).reshape(len(counted), -1), axis=1)
    same = (at.reshape(len(counted), 1, -1) == answers) | (answers < 0)
    right = same.all(axis=-1, keepdims=True) & (sizes == end - begin) & _is_there(batch)
    return right.any(axis=(1, 2)).astype(outputs.dtype)


def f1(outputs: jax.Array, batch: Any) -> jax.Array:
    """Returns the F1 of what counts of the words that are said, each example's best over its answers [B]."""
    (begin, end), answers = _said(outputs, batch), batch["answers"]
    counted = batch["counted"][:, None, None]
    places = jnp.arange(counted.shape[-1])[None, None, None]
    inside = (places >= begin[..., None]) & (places < end[..., None]) & (counted >= 0)
    said = ((counted == answers[..., None]) & inside).sum(axis=-1)  # how often each word of an answer is said
    before = jnp.tril(jnp.ones((answers.shape[-1], answers.shape[-1]), bool), -1)[None, None]
    earlier = ((answers[..., None] == answers[..., None, :]) & before).sum(axis=-1)
    shared = ((said > earlier) & (answers >= 0)).sum(axis=-1)
    total = (answers >= 0).sum(axis=-1) + (end - begin)[..., 0]
    scores = 2 * shared.astype(outputs.dtype) / jnp.maximum(total, 1).astype(outputs.dtype)
    return scores.max(axis=1)


def _is_there(batch: Any) -> jax.Array:
    return (batch["answers"] >= 0).any(axis=-1, keepdims=True)


METRICS: Metrics = {"exact_match": exact_match, "f1": f1}
