"""Answers that are words of a text: where they lie among its tokens, and what of them counts.

Words are what spaces part, and an answer is whole words. What counts is what SQuAD's script compares (Rajpurkar et al.
2016): lower-cased words without ASCII punctuation, articles left out.
"""

import json
import re
import string
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.data_config import LONGEST_ANSWER
from finetune.errors import UserError

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"\S+")


class Answer(NamedTuple):
    """An answer, and the character of the text at which it starts; -1 = where it is found first, see `_found`."""

    text: str
    start: int


def normalised(answer: str) -> list[str]:
    """Returns the words of an answer that count.

    >>> normalised("The  Treaty, of Paris!")
    ['treaty', 'of', 'paris']
    """
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def _bare(text: str) -> list[str]:
    """Returns what `normalised` does, with the articles."""
    return text.lower().translate(_PUNCTUATION).split()


def parsed(value: Any, where: str) -> tuple[Answer, ...]:
    """Returns the answers in a field: a text, a list of texts, or SQuAD's {"text": [...], "answer_start": [...]}.

    Raises UserError, which begins with `where`, for anything else and for none.
    """
    texts, starts = (value, None) if not isinstance(value, dict) else (value.get("text"), value.get("answer_start"))
    texts = [texts] if isinstance(texts, str) else texts
    starts = [starts] if type(starts) is int else starts
    if isinstance(texts, list) and texts and all(isinstance(each, str) and each.strip() for each in texts):
        starts = [-1] * len(texts) if starts is None else starts
        if isinstance(starts, list) and len(starts) == len(texts) and all(type(each) is int for each in starts):
            return tuple(map(Answer, texts, starts))
    raise UserError(
        f"{where}: the answers are {json.dumps(value)[:60]}, allowed: a text, a list of texts, or "
        '{"text": [...], "answer_start": [...]}, one answer or more'
    )


def words(context: str) -> list[tuple[int, int]]:
    """Returns where each word of a text starts and ends."""
    return [found.span() for found in _WORD.finditer(context)]


def encode(
    texts: Sequence[tuple[str, str]], tokenizer_file: Path | None, max_length: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Returns what `text.encode` does of pairs of question and text, of which the text is cut, and two arrays more.

    "first" and "last" int32 [N, T]: the place of the word of the text whose first, or last, token this is, else -1.
    """
    from finetune.data import text  # it is slow to import

    arrays, offsets = text.encode_with_offsets(texts, tokenizer_file, max_length, width)
    for name in ("first", "last"):
        arrays[name] = np.full(arrays["input_ids"].shape, -1, np.int32)
    for row, ((_, context), of_tokens, cut) in enumerate(zip(texts, offsets, arrays["cut"], strict=True)):
        spans = words(context)
        places = _places(spans, len(context), of_tokens)
        before, behind = np.append(-1, places[:-1]), np.append(places[1:], -1)
        arrays["first"][row, : len(places)] = np.where(places != before, places, -1)
        ends = np.array([end for _, end in spans] or [0])[places]
        whole = (of_tokens[:, 1] >= ends) | (not cut)  # the last word may be cut within
        arrays["last"][row, : len(places)] = np.where((places != behind) & whole, places, -1)
    return arrays


def _places(spans: Sequence[tuple[int, int]], length: int, offsets: np.ndarray) -> np.ndarray:
    """Returns the word that each token is of, by the last of its characters, int [tokens]; -1 where it is of none."""
    of_character = np.full(length + 1, -1)
    for place, (start, end) in enumerate(spans):
        of_character[start:end] = place
    return np.where(offsets[:, 1] > offsets[:, 0], of_character[offsets[:, 1] - 1], -1)


def located(
    texts: Sequence[tuple[str, str]],
    answers: Iterable[Sequence[Answer]],
    first: np.ndarray,
    last: np.ndarray,
    where: Callable[[int], str] = "example {}".format,
) -> dict[str, np.ndarray]:
    """Returns the arrays by which answers are learned and judged; first, last: as of `encode`.

    "label" int32 [N, T, 2]: 1 at the first and last token of the first answer, 0 where such could be, -1 elsewhere.
    "counted" int32 [N, M]: the words of the text that count, as numbers, -1 behind them; "begins", "ends" int32 [N, T]:
    their place before the word whose first token this is, and behind that whose last it is, -1 elsewhere. "answers"
    int32 [N, A, L]: what counts of each answer in the same numbers. Raises UserError, which begins with what `where`
    says of an example, for an answer that is not in its text.
    """
    rows = []
    for place, ((_, context), given) in enumerate(zip(texts, answers, strict=True)):
        try:
            rows.append(_row(context, given))
        except UserError as error:
            raise UserError(f"{where(place)}: {error}") from None
    found = {
        "label": np.stack([np.where(each >= 0, 0, -1) for each in (first, last)], axis=-1).astype(np.int32),
        "counted": _ragged([row["counted"] for row in rows]),
        "begins": np.full(first.shape, -1, np.int32),
        "ends": np.full(first.shape, -1, np.int32),
        "answers": _ragged([row["answers"] for row in rows]),
    }
    for place, row in enumerate(rows):
        offsets, (start, end) = row["offsets"], row["span"]
        for name, tokens, further in (("begins", first[place], 0), ("ends", last[place], 1)):
            found[name][place, tokens >= 0] = offsets[tokens[tokens >= 0] + further]
        if start in first[place] and end in last[place]:  # else it is cut off
            found["label"][place, first[place] == start, 0] = 1
            found["label"][place, last[place] == end, 1] = 1
    return found


def _row(context: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
    """Returns the words that count of a text and its answers as numbers, and the words of the first answer."""
    numbers: dict[str, int] = {}

    def numbered(names: Iterable[str]) -> list[int]:
        return [numbers.setdefault(name, len(numbers)) for name in names]

    spans = words(context)
    of_words = [numbered(normalised(context[start:end])) for start, end in spans]
    offsets = np.cumsum([0, *map(len, of_words)])
    return {
        "counted": [number for word in of_words for number in word],
        "offsets": offsets,
        "answers": [numbered(normalised(answer.text)) for answer in answers],
        "span": _span(context, spans, answers[0]),
    }


def _span(context: str, spans: Sequence[tuple[int, int]], answer: Answer) -> tuple[int, int]:
    """Returns the first and the last word that an answer has a part in."""
    if answer.start < 0 and (found := _found(context, spans, answer.text.strip())):
        return found
    start = context.find(answer.text) if answer.start < 0 else answer.start
    end = start + len(answer.text.rstrip())
    if start < 0 or context[start : start + len(answer.text)] != answer.text:
        raise UserError(
            f"the answer {answer.text[:40]!r} is not in its text {context[:40]!r}, allowed: words of it, and "
            "answer_start the character at which they start"
        )
    start += len(answer.text) - len(answer.text.lstrip())
    return _covered(spans, start, end)


def _covered(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Returns the first and the last word that characters have a part in."""
    return bisect_right(spans, start, key=lambda each: each[1]), bisect_left(spans, end, key=lambda each: each[0]) - 1


def _found(context: str, spans: Sequence[tuple[int, int]], answer: str) -> tuple[int, int] | None:
    """Returns the first and the last of the whole words that are an answer, None where there are none.

    Those that hold it as it is written come first, then those that differ in case and punctuation, then in articles.
    """
    wanted = _bare(answer)
    start = context.find(answer)
    while start >= 0:
        first, last = _covered(spans, start, start + len(answer))
        if _bare(context[spans[first][0] : spans[last][1]]) == wanted:
            return first, last
        start = context.find(answer, start + 1)
    return _same(context, spans, wanted, _bare) or _same(context, spans, normalised(answer), normalised)


def _same(
    context: str, spans: Sequence[tuple[int, int]], wanted: list[str], read: Callable[[str], list[str]]
) -> tuple[int, int] | None:
    """Returns the first and the last of the first whole words that are read as `wanted`, None where there are none."""
    flat = [(part, place) for place, (start, end) in enumerate(spans) for part in read(context[start:end])]
    parts, places = [part for part, _ in flat], [-1, *(place for _, place in flat), len(spans)]
    for left in range(len(flat) - len(wanted) + 1 if wanted else 0):
        right = left + len(wanted)
        if parts[left:right] == wanted and places[left] < places[left + 1] and places[right] < places[right + 1]:
            return places[left + 1], places[right]
    return None


def told(labels: Sequence[np.ndarray]) -> list[str]:
    """Returns what the user is told of the answers of train, validation and test; labels: "label" as of `located`."""
    found = np.concatenate([(part == 1).any(axis=(1, 2)) for part in labels])
    seen = np.concatenate(labels[:2]) == 1
    tokens = seen[..., 1].argmax(axis=1) - seen[..., 0].argmax(axis=1) + 1  # 1 for those that are cut off
    cut, long, notes = (~found).sum(), (tokens > LONGEST_ANSWER).sum(), []
    if cut:
        notes.append(
            f"{cut:,} of {len(found):,} answers are cut off with their texts: they are not learned, and what is said "
            "in their place counts as any other answer"
        )
    if long:
        notes.append(
            f"{long:,} of {len(seen):,} answers of train and validation have more than {LONGEST_ANSWER} tokens, the "
            "most that an answer is given: they are learned, and cannot be said"
        )
    return notes


def _ragged(rows: Sequence[Any]) -> np.ndarray:
    """Returns lists of numbers, or of lists of them, as one array int32, -1 where there are none."""
    deep = any(isinstance(each, list) for row in rows for each in row)
    longest = max(max(map(len, rows)), 1)
    if not deep:
        return np.array([[*row, *[-1] * (longest - len(row))] for row in rows], np.int32)
    width = max(max((len(each) for row in rows for each in row), default=0), 1)
    found = np.full((len(rows), longest, width), -1, np.int32)
    for place, row in enumerate(rows):
        for number, each in enumerate(row):
            found[place, number, : len(each)] = each
    return found
