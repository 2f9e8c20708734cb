"""Answers that an exported model finds in texts: whole words, and how probable they are."""

import csv
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from finetune.data import answer_spans
from finetune.export.predictor import TYPES, Model
from finetune.member import span


class Found(NamedTuple):
    """An answer, and the probability of its first token times that of its last; "" and 0 where nothing can be one."""

    answer: str
    probability: float


def encoded(
    texts: Sequence[tuple[str, str]], model: Model, width: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the rows as the model reads them, and "first" and "last" as of `answer_spans.encode`."""
    arrays = answer_spans.encode(texts, model.tokenizer, model.config.data.max_length, width)
    places = {name: arrays.pop(name) for name in ("first", "last")}
    read = arrays.keys() - {"cut", *({TYPES} - model.inputs.keys())}
    return {name: array for name, array in arrays.items() if name in read}, places


def answers(texts: Sequence[tuple[str, str]], places: dict[str, np.ndarray], outputs: np.ndarray) -> list[Found]:
    """Returns the best answer of each row; outputs: [N, T, 2] of the model."""
    starts, ends = jax.device_get(jax.jit(span.best)(jnp.asarray(outputs), places["first"], places["last"]))
    found = []
    for row, (_, context) in enumerate(texts):
        first, last = places["first"][row, starts[row]], places["last"][row, ends[row]]
        if first < 0 or last < first:
            found.append(Found("", 0.0))
            continue
        spans = answer_spans.words(context)
        shares = [
            _share(outputs[row, :, side], places[name][row], token)
            for side, (name, token) in enumerate((("first", starts[row]), ("last", ends[row])))
        ]
        found.append(Found(context[spans[first][0] : spans[last][1]], shares[0] * shares[1]))
    return found


def _share(logits: np.ndarray, possible: np.ndarray, token: Any) -> float:
    """Returns the probability of a token among those that are possible."""
    kept = np.where(possible >= 0, logits.astype(np.float64), -np.inf)
    weights = np.exp(kept - kept.max())
    return float(weights[token] / weights.sum())


def write(file: TextIO, lines: Sequence[int], found: Sequence[Found]) -> None:
    """Writes CSV: row, answer, p."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "answer", "p"])
    writer.writerows([line, each.answer, f"{each.probability:.6g}"] for line, each in zip(lines, found, strict=True))
