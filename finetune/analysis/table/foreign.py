"""Reads tables of trials that others wrote: CSV, TSV, JSON, JSON lines, Optuna storages."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table import optuna_storage, separated
from finetune.analysis.table.direction import Direction
from finetune.errors import UserError, one_of

_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".sqlite3")
_STORAGE = re.compile(r"^sqlite:/{1,3}(?P<file>[^#]+)(?:#(?P<study>.+))?$")
_TABLES = ("trials", "runs", "rows", "results")  # names of the list of trials in a JSON object that holds several
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no chart can hold them
_MOST_COLUMNS = 1000  # nobody chose so many hyperparameters, and to look at every one takes minutes
_MISSING = {"", "na", "n/a", "none", "null", "<na>"}
_FLAGS = {"true": True, "false": False}
_LARGEST = 2**63  # integers beyond it stay text: as float64 two of them could be one


class Table(NamedTuple):
    """A table as it was found: one row a trial; scales maps hyperparameters to log or linear where that is known.

    directions holds those of the columns that an Optuna study optimizes; sampler is one that chose trials by the
    results before them, None if none is known to have. A cell is None where there is none, a float NaN where NaN was
    written.
    """

    frame: pd.DataFrame
    scales: dict[str, str]
    notes: list[str]
    directions: dict[str, Direction]
    sampler: str | None


def read(path: Path | str) -> Table:
    """Returns the table in a file, or of an Optuna study `sqlite:///FILE#STUDY`; raises UserError if it cannot."""
    text = str(path)
    if storage := _STORAGE.match(text):
        return from_optuna(optuna_storage.read(_storage_file(text, storage["file"]), storage["study"]))
    file, suffix = Path(path), Path(path).suffix.lower()
    if not file.is_file():
        raise UserError(f"--trials is {text!r}, which is no file, allowed: a file ending in {', '.join(_SUFFIXES)}")
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return from_optuna(optuna_storage.read(file, None))
    if suffix not in _SUFFIXES:
        raise one_of("ending of --trials", suffix, _SUFFIXES)
    try:
        names, rows, notes = _read_json(file) if "json" in suffix else separated.read(file)
        names, rows, said = _without_control_characters(names, rows)
        if len(names) > _MOST_COLUMNS:
            raise ValueError(f"{len(names):,} columns, more than {_MOST_COLUMNS:,}")
        names = separated.once([name or f"column {place}" for place, name in enumerate(names, 1)])
    except RecursionError:
        raise UserError(f"--trials is {text!r}, which is nested too deeply, allowed: a table") from None
    except (OSError, ValueError) as error:  # what json raises for a damaged file is a ValueError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"--trials is {text!r}, which cannot be read ({reason}), allowed: a table") from None
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    frame = pd.DataFrame({name: typed(cells) for name, cells in zip(names, columns, strict=True)})
    return Table(frame, {}, [*notes, *said], {}, optuna_storage.sampler(names))


def typed(cells: Sequence[Any]) -> pd.Series:
    """Returns cells as bool, int64 or float64 where all that are there are such, else as objects; None if missing.

    A float column stays one of objects where NaN was written, which is a result, beside cells that are missing.
    """
    values = [_value(cell) for cell in cells]
    kinds = {type(value) for value in values if value is not None}
    plain = _plain(values, kinds)
    if plain is not None:
        return plain
    mixed = kinds - {int, float}  # numbers beside anything else are texts again, as they were written
    return pd.Series(
        [_as_text(cell) if mixed else value for cell, value in zip(cells, values, strict=True)], dtype=object
    )


def _plain(values: list[Any], kinds: set[type]) -> pd.Series | None:
    missing = any(value is None for value in values)
    if kinds == {bool} and not missing:
        return pd.Series(values, dtype=bool)
    if kinds == {int} and not missing:
        return pd.Series(values, dtype=np.int64)
    if not kinds or not kinds <= {int, float}:
        return pd.Series(values, dtype=object) if not kinds else None
    if any(value is not None and math.isnan(value) for value in values):
        return None
    return pd.Series([math.nan if value is None else float(value) for value in values], dtype=float)


def _value(cell: Any) -> Any:
    """Returns a cell as None, bool, int, float or str."""
    if isinstance(cell, str):
        stripped = cell.strip()
        lower = stripped.lower()
        if lower in _MISSING:
            return None
        if lower in _FLAGS:
            return _FLAGS[lower]
        cell = stripped if "_" in stripped else _number(stripped)
    if isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) >= _LARGEST:
        return str(cell) if abs(cell) < 10**300 else f"{str(cell)[:20]}..."
    return cell


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _as_text(cell: Any) -> str | None:
    value = _value(cell)
    if value is None or isinstance(value, str):
        return value
    return cell.strip() if isinstance(cell, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _without_control_characters(
    names: list[str], rows: list[list[Any]]
) -> tuple[list[str], list[list[Any]], list[str]]:
    """Returns names and rows with U+FFFD in place of characters that no chart can hold, and a note of how many."""

    def clean(cell: Any) -> Any:
        return _CONTROL.sub("\ufffd", cell) if isinstance(cell, str) else cell

    if not any(isinstance(cell, str) and _CONTROL.search(cell) for row in (names, *rows) for cell in row):
        return names, rows, []
    count = sum(isinstance(cell, str) and bool(_CONTROL.search(cell)) for row in (names, *rows) for cell in row)
    note = f"{count} cells hold control characters, read as \ufffd"
    return [clean(name) for name in names], [[clean(cell) for cell in row] for row in rows], [note]


def _read_json(file: Path) -> tuple[list[str], list[list[Any]], list[str]]:
    """Returns (names, rows, notes) of objects in a JSON file, nested ones flattened with dots; lists as columns too."""
    text = separated.text(file)
    if file.suffix.lower() != ".json":
        rows: Any = [_parse(line) for line in text.split("\n") if line.strip()]
    else:
        rows = _rows(_parse(text))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("no list of objects")
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    return names, [[row.get(name) for name in names] for row in flat], []


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    separated.once([name for name, _ in pairs])
    return dict(pairs)


def _rows(document: Any) -> Any:
    """Returns the list of trials in a document: itself, a list that it holds, or columns as lists or objects."""
    if not isinstance(document, dict):
        return document
    tables = {
        name: value
        for name, value in document.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    }
    if not tables:
        return pd.DataFrame(document, dtype=object).to_dict("records")
    named = [name for name in _TABLES if name in tables]
    if len(tables) > 1 and not named:
        raise ValueError(f"it holds {len(tables)} tables: {', '.join(tables)}")
    return tables[named[0] if named else next(iter(tables))]


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns an object without objects in it: the name of a cell is its path with dots, a list is its JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        found = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        separated.once([*flat, *found]) if flat.keys() & found.keys() else None
        flat |= {path: json.dumps(each) if isinstance(each, list) else each for path, each in found.items()}
    return flat


def _storage_file(text: str, file: str) -> Path:
    """Returns the file of a storage; a pathlib.Path has made one slash of the three or four."""
    candidates = [Path(file), Path("/" + file)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise UserError(f"--trials is {text!r}, which is no file, allowed: sqlite:///FILE or sqlite:///FILE#STUDY")
    return found


def from_optuna(study: Any) -> Table:
    """Returns the table of an optuna.Study: parameters' scales, objectives' directions, and its sampler if adaptive."""
    frame = study.trials_dataframe()
    sampler = optuna_storage.sampler(name for trial in study.trials for name in trial.system_attrs)
    directions = optuna_storage.directions(study, frame) if len(frame) else {}
    said = ", ".join(direction.name.lower() for direction in study.directions)
    note = f"Optuna study {study.study_name!r}, searched to {said}"
    return Table(frame, optuna_storage.scales(study), [note], directions, sampler)
