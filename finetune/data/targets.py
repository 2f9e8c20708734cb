"""Targets: what an example is labelled with, as arrays: one class, several of them, a number, or a class a word."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.config import DataConfig
from finetune.data import answer_spans
from finetune.data.source import UNLABELLED, Examples, Source, is_number, is_unicode
from finetune.errors import UserError, one_of

Targets = tuple[tuple[str, ...], dict[str, np.ndarray]]  # (classes, split -> label [N, ...])

_POINT_ZERO = re.compile(r"([+-]?\d+)\.0+")


def encode(source: Source, config: DataConfig) -> Targets:
    """Returns the classes of a source without other classes than config.classes, and the labels of each split.

    classification: int32 [N]; multilabel: float32 [N, C], 1 where an example has the class; regression: float32 [N],
    and no classes; tokens: object [N] of int32 [words], see `of_tokens`; choice: int32 [N]; question_answering: object
    [N] of answers, see `answer_spans`, and no classes; contrastive: int32 [N] of 0, and no classes. Raises UserError
    for splits and labels that the task cannot have.
    """
    if "train" not in source.splits:
        raise UserError(f"the data has no train split, present: {', '.join(source.splits) or 'none'}")
    for split, examples in source.splits.items():
        if not len(examples.labels):
            raise UserError(f"split {split} has no examples")
    return _ENCODERS[config.task](source, config)


def as_whole(source: Source) -> Source:
    """Returns `source` with class names such as 1.0 written 1 in the splits that hold no others, where another has 1.

    Many tools write a column of whole numbers so when it had an empty field once. Where one split holds 1 and 1.0, they
    are codes, and two.
    """
    written = {split: set(map(str, examples.labels)) for split, examples in source.splits.items()}
    pointed = {split for split, names in written.items() if names and all(map(_POINT_ZERO.fullmatch, names))}
    plain = set().union(*(names for split, names in written.items() if split not in pointed))
    if any(map(_POINT_ZERO.fullmatch, plain)):
        return source
    kept, notes = dict(source.splits), list(source.notes)
    for split in pointed:
        names = {name: name.partition(".")[0] for name in written[split]}
        if plain & set(names.values()):
            kept[split] = Examples(source.splits[split].inputs, [names[label] for label in source.splits[split].labels])
            notes.append(f"labels of split {split} such as {min(names)} are read as {names[min(names)]}")
    return source._replace(splits=kept, notes=tuple(notes))


def number(value: Any, where: str) -> float:
    """Returns a target as a number; raises UserError, which begins with `where`, unless it is finite in float32."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = np.nan
    if not abs(found) <= float(np.finfo(np.float32).max):
        raise UserError(f"{where}: the target is {str(value)[:40]!r}, allowed: a number that is finite in float32")
    return found


def names(value: Any, separator: str, where: str) -> tuple[str, ...]:
    """Returns the labels in a field: the items of a JSON list, else what `separator` parts; empty ones are none."""
    items = value if isinstance(value, list) else str(value).split(separator)
    for item in items:
        if not _is_scalar(item):
            raise UserError(f"{where}: a label is {str(item)[:40]}, allowed: a text or a number")
    return tuple(dict.fromkeys(text for item in items if (text := str(item).strip())))


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str | int) or (isinstance(item, float) and math.isfinite(item))


def _one_class(source: Source, config: DataConfig) -> Targets:
    _check_missing(source)
    classes = _classes(source, {split: examples.labels for split, examples in source.splits.items()})
    if len(classes) < 2:
        raise UserError(f"the data has one class only, {classes[0]!r}; allowed: two or more")
    index = {name: place for place, name in enumerate(classes)}
    labels = {
        split: np.array([index[label] for label in examples.labels], np.int32)
        for split, examples in source.splits.items()
    }
    return classes, labels


def _check_missing(source: Source) -> None:
    """Raises UserError for a label nan where all others are numbers: it is none."""
    present = {label.lower() for examples in source.splits.values() for label in examples.labels}
    if "nan" in present and len(present) > 1 and all(map(is_number, present)):
        raise UserError("a label is nan where all others are numbers, allowed: a label for every example")


def _classes(source: Source, labels: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Returns the classes of the training split, in the order of the source, else sorted."""
    present = set(labels["train"])
    for split, others in labels.items():
        if unseen := sorted(set(others) - present):
            raise UserError(f"label {unseen[0]!r} of split {split} is out of range: no example in train has it")
    for name in present:
        if not is_unicode(name):
            raise UserError(f"class name {name!r} is not valid Unicode, allowed: text that can be written as UTF-8")
    return tuple(name for name in source.order or sorted(present) if name in present)


def _several_classes(source: Source, config: DataConfig) -> Targets:
    if config.label_separator == "":
        raise UserError("data.label_separator is '', allowed: a text that parts labels, such as '|'")
    sets: dict[str, list[tuple[str, ...]]] = {
        split: [
            each if isinstance(each, tuple) else names(each, config.label_separator, f"split {split}")
            for each in examples.labels
        ]
        for split, examples in source.splits.items()
    }
    known = {name for rows in sets.values() for row in rows for name in row}
    for wanted in config.classes:
        if wanted not in known:
            raise one_of("data.classes", wanted, known)
    kept = set(config.classes) or known
    sets = {split: [tuple(name for name in row if name in kept) for row in rows] for split, rows in sets.items()}
    classes = _classes(source, {split: [name for row in rows for name in row] for split, rows in sets.items()})
    if not classes:
        raise UserError("no example in train has a label, allowed: some that have")
    index = {name: place for place, name in enumerate(classes)}
    return classes, {split: _multi_hot(rows, index) for split, rows in sets.items()}


def _multi_hot(rows: Sequence[tuple[str, ...]], index: dict[str, int]) -> np.ndarray:
    found = np.zeros((len(rows), len(index)), np.float32)
    for place, row in enumerate(rows):
        found[place, [index[name] for name in row]] = 1
    return found


def _check_no_classes(config: DataConfig) -> None:
    if config.classes:
        raise UserError(f"data.classes is {', '.join(config.classes)!r}, allowed for {config.task}: none")


def _number(source: Source, config: DataConfig) -> Targets:
    _check_no_classes(config)
    labels = {
        split: np.array([number(label, f"split {split}") for label in examples.labels], np.float32)
        for split, examples in source.splits.items()
    }
    if (labels["train"] == labels["train"][0]).all():
        raise UserError(f"all targets of train are {labels['train'][0]:g}, allowed: two different numbers or more")
    return (), labels


def _place(source: Source, config: DataConfig) -> Targets:
    _check_no_classes(config)
    names = config.text_columns[1:]
    numbers = {str(place): place for place in range(len(names))}
    for place, name in enumerate(names):
        if numbers.get(name, place) != place:
            raise UserError(
                f"data.text_columns names choice {place} {name!r}, allowed for choice: no name that is another's number"
            )
    index = numbers | {name: place for place, name in enumerate(names)}
    for split, examples in source.splits.items():
        for label in examples.labels:
            if label not in index:
                raise one_of(f"label of split {split}", label, index)
    labels = {
        split: np.array([index[label] for label in examples.labels], np.int32)
        for split, examples in source.splits.items()
    }
    return names, labels


def _nothing(source: Source, config: DataConfig) -> Targets:
    _check_no_classes(config)
    return (), {split: np.zeros(len(examples.labels), np.int32) for split, examples in source.splits.items()}


def _answers(source: Source, config: DataConfig) -> Targets:
    _check_no_classes(config)
    labels = {}
    for split, examples in source.splits.items():
        labels[split] = np.empty(len(examples.labels), object)
        labels[split][:] = [
            each if isinstance(each, tuple) else answer_spans.parsed(each, f"split {split}") for each in examples.labels
        ]
    return (), labels


def words(value: Any, what: str, where: str) -> list[str]:
    """Returns a JSON list of words or tags as texts; raises UserError for anything else."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: {what} is {str(value)[:40]!r}, allowed for tokens: a list, not empty")
    for item in value:
        if not _is_scalar(item) or not str(item).strip() or not is_unicode(str(item)):
            raise UserError(f"{where}: {what} has {str(item)[:40]!r}, allowed: texts that are not empty")
    return [str(item).strip() for item in value]


def _class_of_each_word(source: Source, config: DataConfig) -> Targets:
    if source.kind != "words":
        raise UserError(f"data.task is 'tokens' for data.name {config.name!r}, allowed: .jsonl files of words and tags")
    _check_no_classes(config)
    tags = {split: [tag for row in each.labels for tag in row] for split, each in source.splits.items()}
    classes = _classes(source, tags)
    if len(classes) < 2:
        raise UserError(f"the data has one tag only, {classes[0]!r}; allowed: two or more")
    index = {name: place for place, name in enumerate(classes)}
    labels = {}
    for split, each in source.splits.items():
        labels[split] = np.empty(len(each.labels), object)
        for place, row in enumerate(each.labels):
            labels[split][place] = np.array([index[tag] for tag in row], np.int32)
    return classes, labels


def of_tokens(labels: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Returns the label int32 [N, T] of each token: its word's if it is the first of it, else -1, which is none.

    labels: object [N] of int32 [words]; word: int32 [N, T], see `text.encode_words`.
    """
    found = np.full(word.shape, -1, np.int32)
    for row, (places, of_words) in enumerate(zip(word, labels, strict=True)):
        first = places >= 0
        found[row, first] = of_words[places[first]]
    return found


_ENCODERS: dict[str, Callable[[Source, DataConfig], Targets]] = {
    "classification": _one_class,
    "multilabel": _several_classes,
    "regression": _number,
    "tokens": _class_of_each_word,
    "choice": _place,
    "question_answering": _answers,
    UNLABELLED: _nothing,
}
