"""Entities in IOB tags: which words they span, and the F1 of finding them whole and of their type.

A tag is O, B-TYPE or I-TYPE. An entity starts at B, and at an I that does not go on with an entity of its type, as
conlleval and seqeval read such tags (Tjong Kim Sang and De Meulder 2003); it ends before the next start or O.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.member.metric import Metric

NAME = "entity_f1"
_OUTSIDE = "O"
_TAG = re.compile(r"([BI])-(.+)", re.DOTALL)


def is_iob(tags: Sequence[str]) -> bool:
    """Says whether every tag is O, B-TYPE or I-TYPE, and some are of a type."""
    return any(map(_TAG.fullmatch, tags)) and all(tag == _OUTSIDE or _TAG.fullmatch(tag) for tag in tags)


class Spans(NamedTuple):
    """Entities of tags [N, T], as arrays [N, T] at the places of their last words; bool, int32, int32."""

    ends: jax.Array  # whether one ends here
    start: jax.Array  # where it started
    kind: jax.Array  # its type


def f1(tags: Sequence[str]) -> Metric:
    """Returns the F1 of entities, all of a split together, for classes that are these IOB tags; 0 without any entity.

    An entity counts as found if its first word, its last and its type are right. Outputs [N, T, C], labels [N, T];
    a token whose label is below 0 is no word, and what the tagger says of it does not count.
    """
    parts = [_TAG.fullmatch(tag) for tag in tags]
    types = sorted({part[2] for part in parts if part})
    begins = np.array([part is not None and part[1] == "B" for part in parts])
    kinds = np.array([types.index(part[2]) if part else -1 for part in parts], np.int32)

    def of(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
        # Words first, in their order, so that the neighbours of a word are words.
        order = jnp.argsort(labels < 0, axis=1, stable=True)
        true, found = (jnp.take_along_axis(each, order, axis=1) for each in (labels, outputs.argmax(axis=-1)))
        words = (true >= 0) & (weight[:, None] > 0)
        a, b = (_spans(jnp.maximum(each, 0), words, begins, kinds) for each in (true, found))
        right = a.ends & b.ends & (a.start == b.start) & (a.kind == b.kind)
        dtype = jnp.promote_types(outputs.dtype, jnp.float32)
        total = a.ends.sum() + b.ends.sum()
        return (2 * right.sum()).astype(dtype) / jnp.maximum(total, 1).astype(dtype)

    return Metric(of, of_split=True)


def _spans(tags: jax.Array, words: jax.Array, begins: np.ndarray, kinds: np.ndarray) -> Spans:
    """Returns the entities of tags [N, T], where `words` says which of them are some."""
    kind = jnp.where(words, jnp.asarray(kinds)[tags], -1)
    outside = jnp.full((len(kind), 1), -1, kind.dtype)
    before = jnp.concatenate([outside, kind[:, :-1]], axis=1)
    starts = (kind >= 0) & (jnp.asarray(begins)[tags] | (kind != before))
    goes_on = jnp.concatenate([(kind >= 0) & ~starts, outside >= 0], axis=1)[:, 1:]
    places = jnp.broadcast_to(jnp.arange(tags.shape[1], dtype=jnp.int32)[None], tags.shape)
    return Spans((kind >= 0) & ~goes_on, jax.lax.cummax(jnp.where(starts, places, -1), axis=1), kind)
