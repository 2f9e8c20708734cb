"""Texts of .csv, .tsv and .jsonl files: one file, or a directory of them called train, validation and test."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune.config import DataConfig
from finetune.data import answer_spans, quoting, targets
from finetune.data.source import SPLITS, UNLABELLED, Examples, Source, is_unicode, labelled, split_of, unlabelled
from finetune.errors import UserError, one_of

SUFFIXES = (".csv", ".tsv", ".jsonl")
_LONGEST_FIELD_BYTES = 2**31 - 1  # the csv module's own limit is 131,072


def read(path: Path, config: DataConfig) -> Source:
    """Returns the text source of a file, all of it as train, or of a directory, a test split without labels left out.

    Raises UserError, with file and line, for an unknown split, a missing column or one that is there twice, a row with
    too few or too many fields, bad JSON or quoting, a field that is neither text nor number, an empty label, text that
    is not UTF-8, and a file without rows.
    """
    files = _by_split(path) if path.is_dir() else {"train": path}
    notes = []
    if "test" in files and not _has_labels(files["test"], config):
        notes.append(unlabelled(files.pop("test")))
    if config.task == "tokens":
        tagged = {split: _tagged(file, config) for split, file in files.items()}
        return Source("words", tagged, notes=tuple(notes))
    splits = {split: _examples(file, config) for split, file in files.items()}
    return labelled(Source("pair" if config.text_columns else "text", splits, notes=tuple(notes)))


def is_delimited(file: Path) -> bool:
    """Says whether the ending of a file is one of SUFFIXES, in any case."""
    return file.suffix.lower() in SUFFIXES


def _by_split(directory: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        if not is_delimited(file):
            continue
        split = split_of(file.stem)
        if split not in SPLITS:
            raise one_of(f"split {file}", file.stem, SPLITS)
        if split in files:
            raise UserError(f"split {split} is in {files[split]} and in {file}, allowed: one file a split")
        files[split] = file
    return files


def _has_labels(file: Path, config: DataConfig) -> bool:
    """Says whether any row of a file has a label; no label at all is one for multilabel, where the column is there."""
    if config.task == UNLABELLED:
        return True
    for _, row in rows(file):
        value = row.get(config.label_column)
        blank = not str(value).strip() and config.task != "multilabel"
        if value is not None and not blank:
            return True
    return False


def _examples(file: Path, config: DataConfig) -> Examples:
    texts, labels = [], []
    for line, row in rows(file, "" if config.task == UNLABELLED else config.label_column):
        texts.append(_input(row, config.text_column, config.text_columns, f"{file}:{line}"))
        labels.append(_label(row, config, f"{file}:{line}"))
    return Examples(texts, labels)


def _tagged(file: Path, config: DataConfig) -> Examples:
    """Returns the words and the tags of each row."""
    found, tags = [], []
    for line, row in rows(file):
        found.append(words_of(row, config.text_column, f"{file}:{line}"))
        tags.append(words_of(row, config.label_column, f"{file}:{line}"))
        if len(found[-1]) != len(tags[-1]):
            raise UserError(f"{file}:{line}: {len(tags[-1])} tags for {len(found[-1])} words, allowed: one for each")
    return Examples(found, tags)


def words_of(row: dict[str, Any], column: str, where: str) -> list[str]:
    """Returns the list in a column of a row; raises UserError if there is none."""
    return targets.words(_value(row, column, where), column, where)


def _label(row: dict[str, Any], config: DataConfig, where: str) -> Any:
    """Returns the label of a row, as `Examples` holds it."""
    if config.task == UNLABELLED:
        return ""
    if config.task == "multilabel" and isinstance(value := _value(row, config.label_column, where), list):
        return targets.names(value, config.label_separator, where)
    if config.task == "question_answering":
        return answer_spans.parsed(_value(row, config.label_column, where), where)
    text = _field(row, config.label_column, where).strip()
    if config.task == "multilabel":
        return targets.names(text, config.label_separator, where)
    if not text:
        raise UserError(f"{where}: the label is empty")
    return targets.number(text, where) if config.task == "regression" else text


def _input(row: dict[str, Any], column: str, pair: Sequence[str], where: str) -> str | tuple[str, ...]:
    """Returns the text of a row, or those in the columns of a `pair`."""
    return tuple(_field(row, each, where) for each in pair) if pair else _field(row, column, where)


def read_texts(file: Path, column: str, pair: Sequence[str] = ()) -> tuple[list[int], list[Any]]:
    """Returns the last line and the text of every row of a file without labels, or both of a `pair` of columns.

    Raises UserError as `read` does.
    """
    found = [(line, _input(row, column, pair, f"{file}:{line}")) for line, row in rows(file)]
    return [line for line, _ in found], [text for _, text in found]


def rows(file: Path, label_column: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (last line, column -> field) for every row that is not blank; raises UserError as `read` does.

    label_column: by which rows of a .csv file are known that a quote has joined.
    """
    empty = True
    try:
        for pair in _json_rows(file) if file.suffix.lower() == ".jsonl" else _csv_rows(file, label_column):
            empty = False
            yield pair
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if empty:
        raise UserError(f"{file} has no rows")


def _value(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise UserError(f"{where}: no column {column!r}, present: {', '.join(row)}")
    if row[column] is None:
        raise UserError(f"{where}: {column} is null, allowed: a text or a number")
    return row[column]


def _field(row: dict[str, Any], column: str, where: str) -> str:
    value = _value(row, column, where)
    if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{where}: {column} is {json.dumps(value)[:40]}, allowed: a text or a number")
    text = str(value)
    if not is_unicode(text):
        raise UserError(f"{where}: {column} is {text[:40]!r}, which is not valid Unicode, allowed: whole characters")
    return text


def _csv_rows(file: Path, label_column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (last line, column -> field) for every row that is not blank."""
    csv.field_size_limit(_LONGEST_FIELD_BYTES)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = quoting.Lines(stream)
        # Strict: else a stray quote would silently join rows.
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            yield from _checked_rows(file, reader, lines, delimiter, label_column)
        except csv.Error as error:
            raise UserError(
                f"{file}:{reader.line_num - len(lines.taken) + 1}: {error}"
                " (a field that starts with a quote ends with one, and quotes inside are doubled)"
            ) from error


def _checked_rows(
    file: Path, reader: Any, lines: quoting.Lines, delimiter: str, label_column: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    header: list[str] = next(filter(None, reader), [])
    _check_once(header, f"{file}:{reader.line_num}")
    known: set[str] = set()
    doubted: list[tuple[UserError, set[str]]] = []
    lines.taken.clear()
    for fields in filter(None, reader):
        line, taken = reader.line_num, [*lines.taken]
        lines.taken.clear()
        if len(fields) != len(header):
            raise UserError(f"{file}:{line}: the row does not have {len(header)} fields as the header has")
        row = dict(zip(header, fields, strict=True))
        if others := quoting.apart(taken, delimiter, len(header)):
            error = quoting.joined(f"{file}:{line - len(taken) + 1}", line, len(others))
            if delimiter == "\t":  # which few texts hold: there is no other reason for so many
                raise error
            if label_column in header:
                place = header.index(label_column)
                doubted.append((error, {other[place].strip() for other in others}))
        known.add(row.get(label_column, "").strip())
        yield line, row
    for error, labels in doubted:
        if quoting.are_labels(labels, known):
            raise error


def _check_once(names: list[str], where: str) -> None:
    """Raises UserError for a name that is there twice; columns without a name are passed over."""
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{where}: {twice[0]!r} is there {names.count(twice[0])} times, allowed: each name once")


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line, name -> value) for every line that is not blank."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            _check_once([name for name, _ in pairs], f"{file}:{line}")
        return found

    with file.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text, object_pairs_hook=once)
            except UserError:
                raise
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}:{line}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file}:{line}: not a JSON object but {text.strip()[:40]}")
            yield line, row
