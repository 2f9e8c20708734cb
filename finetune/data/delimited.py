"""Texts of .csv, .tsv and .jsonl files: one file, or a directory of them called train, validation and test."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.config import DataConfig
from finetune.data import targets
from finetune.data.source import SPLITS, Examples, Source, is_unicode
from finetune.errors import UserError, one_of

SUFFIXES = (".csv", ".tsv", ".jsonl")
_LONGEST_FIELD_BYTES = 2**31 - 1  # the csv module's own limit is 131,072


def read(path: Path, config: DataConfig) -> Source:
    """Returns the text source of a file, all of it as train, or of a directory.

    Raises UserError, with file and line, for an unknown split, a missing column, a row with too few or too many
    fields, bad JSON or quoting, an empty label, text that is not UTF-8, and a file without rows.
    """
    files = _by_split(path) if path.is_dir() else {"train": path}
    if config.task == "tokens":
        return Source("words", {split: _tagged(file, config) for split, file in files.items()})
    return Source("text", {split: _examples(file, config) for split, file in files.items()})


def _by_split(directory: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        if file.suffix not in SUFFIXES:
            continue
        if file.stem not in SPLITS:
            raise one_of(f"split {file}", file.stem, SPLITS)
        if file.stem in files:
            raise UserError(f"split {file.stem} is in {files[file.stem]} and in {file}, allowed: one file a split")
        files[file.stem] = file
    return files


def _examples(file: Path, config: DataConfig) -> Examples:
    texts, labels = [], []
    for line, row in rows(file):
        texts.append(_field(row, config.text_column, f"{file}:{line}"))
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
    _field(row, column, where)
    return targets.words(row[column], column, where)


def _label(row: dict[str, Any], config: DataConfig, where: str) -> Any:
    """Returns the label of a row, as `Examples` holds it."""
    text = _field(row, config.label_column, where).strip()
    if config.task == "multilabel":
        value = row[config.label_column]
        return targets.names(value if isinstance(value, list) else text, config.label_separator, where)
    if not text:
        raise UserError(f"{where}: the label is empty")
    return targets.number(text, where) if config.task == "regression" else text


def read_texts(file: Path, column: str) -> tuple[list[int], list[str]]:
    """Returns the last line and the text of every row of a file without labels; raises UserError as `read` does."""
    found = [(line, _field(row, column, f"{file}:{line}")) for line, row in rows(file)]
    return [line for line, _ in found], [text for _, text in found]


def rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (last line, column -> field) for every row that is not blank; raises UserError as `read` does."""
    empty = True
    try:
        for pair in _json_rows(file) if file.suffix == ".jsonl" else _csv_rows(file):
            empty = False
            yield pair
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if empty:
        raise UserError(f"{file} has no rows")


def _field(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise UserError(f"{where}: no column {column!r}, present: {', '.join(row)}")
    if row[column] is None:
        raise UserError(f"{where}: {column} is null, allowed: a text or a number")
    text = str(row[column])
    if not is_unicode(text):
        raise UserError(f"{where}: {column} is {text[:40]!r}, which is not valid Unicode, allowed: whole characters")
    return text


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (last line, column -> field) for every row that is not blank."""
    csv.field_size_limit(_LONGEST_FIELD_BYTES)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        # Strict: else a stray quote would silently join rows.
        rows = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
        try:
            for row in rows:
                if None in row or None in row.values():
                    count = len(rows.fieldnames or ())
                    raise UserError(f"{file}:{rows.line_num}: the row does not have {count} fields as the header has")
                yield rows.line_num, row
        except csv.Error as error:
            raise UserError(
                f"{file}:{rows.line_num + 1}: {error}"
                " (a field that starts with a quote ends with one, and quotes inside are doubled)"
            ) from error


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line, name -> value) for every line that is not blank."""
    with file.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}:{line}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file}:{line}: not a JSON object but {text.strip()[:40]}")
            yield line, row
