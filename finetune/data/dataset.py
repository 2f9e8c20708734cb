"""Dataset: the three splits of any source, as arrays that a device can hold and index."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.config import USUAL_MAX_LENGTH, DataConfig
from finetune.data import delimited, duplicates, splits, targets
from finetune.data.source import SPLITS, Examples, Source
from finetune.errors import UserError, one_of
from finetune.storage import files

Split = dict[str, np.ndarray]  # leading axis: examples; "label" as `targets` encodes it

_HELD_OUT = 5  # a fifth is split off for test, and for validation where no number is given
_TEST_SEED = 0  # the test split does not move with data.split_seed
# The last part of a draw's key, so that no two draws use the same stream.
_TEST, _VALIDATION, _TRAIN = range(3)


# How many data.text_columns a kind of task has, if not two; and which cannot do without.
_COLUMNS = {"tokens": (0, 0), "choice": (3, sys.maxsize)}
_NEED_COLUMNS = ("choice", "contrastive", "question_answering")
_ALLOWED_COLUMNS = {
    0: "none",
    2: "two columns, such as premise,hypothesis",
    3: "those of the first text and of all choices, such as question,a,b,c",
}


class Dataset(NamedTuple):
    """Three splits with the same arrays, of integers or float32, and what identifies them.

    Texts: "input_ids" uint16 or int32 [N, T], "length" int32 [N]; pairs of them "token_type_ids" uint8 [N, T] too;
    where an example has K texts [N, K, T] and [N, K]. Images: "image" uint8 or float32 [N, H, W, C]. Feature vectors:
    "features" float32 [N, D]. All: "label", int32 [N], an index into `classes`; multilabel: float32 [N, C], 1 where an
    example has the class; regression: float32 [N], and `classes` is empty; tokens: int32 [N, T], -1 where a token has
    none; choice: int32 [N]; contrastive: int32 [N] of 0.
    content_hash: sha256 in hex over names, dtypes, shapes and bytes of all arrays, and the class names.
    facts: what is known of the data, as plain JSON values: "duplicates", see `duplicates.count`; of texts "cut_share",
        how many of all are longer than max_length.
    notes: what the user is told of the data, a line each.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    content_hash: str
    facts: dict[str, Any] = {}  # noqa: RUF012 (nothing changes it)
    notes: tuple[str, ...] = ()


def load(config: DataConfig, tokenizer_file: Path | None, token_types: bool = True) -> Dataset:
    """Returns the data set that `config` names, split and encoded.

    tokenizer_file: used for texts unless config.tokenizer names another. token_types: whether the model tells the texts
    of a pair apart by the types of tokens; those of a model that does not are left out.

    Raises UserError for whatever is wrong with the data or the settings.
    """
    source = _source(config)
    classes, labels = targets.encode(source, config)
    chosen = _choose(source, labels, config)
    file = files.expanded(config.tokenizer) if config.tokenizer else tokenizer_file
    arrays = _encode(source.kind, [item for inputs, _ in chosen for item in inputs], config, file)
    cut = arrays.pop("cut", None)
    if not token_types:
        arrays.pop("token_type_ids", None)
    if config.task == "tokens":
        word = np.split(arrays.pop("word"), np.cumsum([len(labels) for _, labels in chosen])[:-1])
        chosen = [
            (inputs, targets.of_tokens(labels, part)) for (inputs, labels), part in zip(chosen, word, strict=True)
        ]
    told: list[str] = []
    if config.task == "question_answering":
        arrays, chosen, told = _with_answers(arrays, chosen, source)
    ends = np.cumsum([len(labels) for _, labels in chosen])[:-1]
    pieces = {key: np.split(array, ends) for key, array in arrays.items()}
    train, validation, test = (
        {key: pieces[key][number] for key in pieces} | {"label": labels} for number, (_, labels) in enumerate(chosen)
    )
    counts = duplicates.count(train, validation, test)
    facts = {"duplicates": counts} | ({} if cut is None else {"cut_share": float(cut.mean())})
    notes = (
        *source.notes,
        *told,
        *_told_of_cut(cut, "pairs of texts" if source.kind == "pair" else "texts"),
        *duplicates.told(counts),
    )
    return Dataset(train, validation, test, classes, _content_hash((train, validation, test), classes), facts, notes)


def _with_answers(
    arrays: Split, chosen: Sequence[tuple[list[Any], np.ndarray]], source: Source
) -> tuple[Split, list[tuple[list[Any], np.ndarray]], list[str]]:
    """Returns encoded texts with what answers are judged by, three splits with the answers as labels, and notes."""
    from finetune.data import answer_spans

    texts, answers = ([item for part in chosen for item in part[number]] for number in (0, 1))
    first, last = arrays.pop("first"), arrays.pop("last")
    found = answer_spans.located(texts, answers, first, last, lambda place: _row_of(source, texts[place]))
    labels = np.split(found.pop("label"), np.cumsum([len(inputs) for inputs, _ in chosen])[:-1])
    placed = [(inputs, part) for (inputs, _), part in zip(chosen, labels, strict=True)]
    return arrays | found, placed, answer_spans.told(labels)


def _row_of(source: Source, item: Any) -> str:
    """Returns the split and the row, from 1, that an input was read from: examples are drawn, and keep their inputs."""
    return next(
        f"split {split}, row {row}"
        for split, examples in source.splits.items()
        for row, each in enumerate(examples.inputs, 1)
        if each is item
    )


def _source(config: DataConfig) -> Source:
    """Returns the source that config.name stands for, with the classes that are kept."""
    _check_columns(config)
    try:
        source = _read(config)
    except OSError as error:
        raise UserError(f"cannot read data.name {config.name!r}: {error}") from error
    if config.text_columns and source.kind != "pair":
        raise _no_texts(config)
    return _keep_classes(targets.as_whole(source), config.classes) if config.task == "classification" else source


def _no_texts(config: DataConfig) -> UserError:
    return UserError(
        f"data.text_columns is {', '.join(config.text_columns)!r} for data.name {config.name!r}, allowed: empty; "
        "pairs are read from .csv, .tsv and .jsonl files and TFDS sets"
    )


def _check_columns(config: DataConfig) -> None:
    """Raises UserError unless data.text_columns are as many different ones as the task has."""
    columns, least, most = config.text_columns, *_COLUMNS.get(config.task, (2, 2))
    fit = least <= len(columns) <= most and len(set(columns)) == len(columns)
    if not fit and (columns or config.task in _NEED_COLUMNS):
        told = ", ".join(columns)
        raise UserError(f"data.text_columns is {told!r}, allowed for {config.task}: {_ALLOWED_COLUMNS[least]}")


def _told_of_cut(cut: np.ndarray | None, what: str) -> list[str]:
    if cut is None or not cut.any():
        return []
    return [f"{cut.sum():,} of {len(cut):,} {what} ({cut.mean():.1%}) are longer than data.max_length and cut"]


def _read(config: DataConfig) -> Source:
    """Returns the source that config.name stands for. Each is imported when it is needed: some are slow to."""
    from finetune.data import packaged, tfds

    if config.name in packaged.NAMES:
        return packaged.read(config.name)
    if config.name.startswith(tfds.PREFIX):
        return tfds.read_name(config.name.removeprefix(tfds.PREFIX), config)
    path = files.expanded(config.name)
    if path.is_dir():
        return _read_directory(path, config)
    if path.is_file():
        return _read_file(path, config)
    if len(path.parts) > 1 or path.suffix:
        raise UserError(f"data.name is {config.name!r}: no such file or directory")
    raise one_of("data.name", config.name, [*packaged.NAMES, "tfds:NAME", "a path that exists"])


def _read_file(path: Path, config: DataConfig) -> Source:
    from finetune.data import arrays

    if path.suffix.lower() == ".npz" and config.text_columns:
        raise _no_texts(config)
    if path.suffix.lower() == ".npz":
        return arrays.read(path, config.task)
    if delimited.is_delimited(path):
        return delimited.read(path, config)
    raise one_of(f"ending of {path}", path.suffix, [".npz", *delimited.SUFFIXES])


def _read_directory(path: Path, config: DataConfig) -> Source:
    from finetune.data import tfds

    if (path / "dataset_info.json").exists():
        return tfds.read_directory(path, config)
    if any(map(delimited.is_delimited, path.iterdir())):
        return delimited.read(path, config)
    from finetune.data import images

    return images.read(path)


def _keep_classes(source: Source, wanted: Sequence[str]) -> Source:
    """Returns `source` without the examples of other classes; all are kept if `wanted` is empty."""
    if not wanted:
        return source
    known = {label for examples in source.splits.values() for label in examples.labels}
    for name in wanted:
        if name not in known:
            raise one_of("data.classes", name, known)
    kept = {}
    for split, (inputs, labels) in source.splits.items():
        indices = [index for index, label in enumerate(labels) if label in wanted]
        kept[split] = Examples([inputs[index] for index in indices], [labels[index] for index in indices])
    return source._replace(splits=kept)


def _choose(source: Source, labels_of: dict[str, np.ndarray], config: DataConfig) -> list[tuple[list[Any], np.ndarray]]:
    """Returns the inputs and the labels of train, validation and test, split off where the set has none.

    Test and validation are drawn before the subset of train, so that its size does not move them.
    """
    chosen = {split: (list(examples.inputs), labels_of[split]) for split, examples in source.splits.items()}
    if "test" not in chosen:
        _split_off(chosen, "test", 0, (_TEST_SEED, _TEST))
    if "validation" not in chosen:
        _split_off(chosen, "validation", config.validation_examples, (config.split_seed, _VALIDATION))
    inputs, labels = chosen["train"]
    if config.train_examples > len(labels):
        raise UserError(
            f"data.train_examples is {config.train_examples}, allowed: at most {len(labels)}, all there are"
        )
    if config.train_examples:
        mask = splits.stratify(_strata(labels), config.train_examples, (config.split_seed, _TRAIN))
        chosen["train"] = _select(inputs, labels, mask)
    return [chosen[split] for split in SPLITS]


def _split_off(chosen: dict[str, tuple[list[Any], np.ndarray]], split: str, count: int, key: tuple[int, int]) -> None:
    """Moves `count` examples of train, 0 = a fifth, to a new split; every class keeps one in train."""
    inputs, labels = chosen["train"]
    strata = _strata(labels)
    total = count or max(len(labels) // _HELD_OUT, 1)
    if total > (most := splits.room(strata, leave=1)):
        raise UserError(
            f"{split} would take {total} of {len(labels)} training examples, allowed: at most {most}, so that one of"
            " every class remains"
        )
    mask = splits.stratify(strata, total, key, leave=1)
    chosen[split], chosen["train"] = _select(inputs, labels, mask), _select(inputs, labels, ~mask)


def _strata(labels: np.ndarray) -> np.ndarray:
    """Returns what a draw is stratified by: the class of an example that has one, else nothing."""
    return labels if labels.dtype == np.int32 and labels.ndim == 1 else np.zeros(len(labels), np.int32)


def _select(inputs: list[Any], labels: np.ndarray, mask: np.ndarray) -> tuple[list[Any], np.ndarray]:
    return [inputs[index] for index in np.flatnonzero(mask)], labels[mask]


def _encode(kind: str, inputs: list[Any], config: DataConfig, tokenizer_file: Path | None) -> Split:
    if kind in ("text", "pair"):
        from finetune.data import answer_spans, text

        if config.task == "question_answering":
            return answer_spans.encode(inputs, tokenizer_file, config.max_length or USUAL_MAX_LENGTH)
        return text.encode_for(config.task, inputs, tokenizer_file, config.max_length or USUAL_MAX_LENGTH)
    if kind == "words":
        from finetune.data import text

        return text.encode_words(inputs, tokenizer_file, config.max_length or USUAL_MAX_LENGTH)
    if kind == "array" and inputs[0].ndim == 1:
        return {"features": np.stack(inputs)}
    from finetune.data import images

    if kind == "array":
        return {"image": images.sized(np.stack(inputs), config)}
    return {"image": images.decode(inputs, config.image_size, images.Scaling.of(config))}


def _content_hash(parts: tuple[Split, ...], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for split, part in zip(SPLITS, parts, strict=True):
        for key, array in sorted(part.items()):
            digest.update(repr((split, key, array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
