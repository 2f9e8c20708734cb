"""Reads tables of trials that others wrote: CSV, TSV, JSON, JSON lines, Optuna storages."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from finetune.errors import UserError, one_of

_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".sqlite3")
_STORAGE = re.compile(r"^sqlite:/{1,3}(?P<file>[^#]+)(?:#(?P<study>.+))?$")


class Table(NamedTuple):
    """A table as it was found: one row a trial; scales maps hyperparameters to log or linear where that is known."""

    frame: pd.DataFrame
    scales: dict[str, str]
    notes: list[str]


def read(path: Path | str) -> Table:
    """Returns the table in a file, or of an Optuna study `sqlite:///FILE#STUDY`; raises UserError if it cannot."""
    text = str(path)
    if storage := _STORAGE.match(text):
        return _read_optuna(_storage_file(text, storage["file"]), storage["study"])
    file, suffix = Path(path), Path(path).suffix.lower()
    if not file.is_file():
        raise UserError(f"--trials is {text!r}, which is no file, allowed: a file ending in {', '.join(_SUFFIXES)}")
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return _read_optuna(file, None)
    if suffix not in _SUFFIXES:
        raise one_of("ending of --trials", suffix, _SUFFIXES)
    try:
        frame = _read_json(file) if "json" in suffix else pd.read_csv(file, sep="\t" if suffix == ".tsv" else ",")
    except (OSError, ValueError) as error:  # what pandas and json raise for a damaged file is a ValueError
        reason = str(error).splitlines()[0]
        raise UserError(f"--trials is {text!r}, which cannot be read ({reason}), allowed: a table") from None
    return Table(frame, {}, [])


def _read_json(file: Path) -> pd.DataFrame:
    """Returns objects of a JSON file as rows, nested ones flattened with dots; columns as lists are taken too."""
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() != ".json":
        rows: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = json.loads(text)
        if isinstance(rows, dict):
            lists = [value for value in rows.values() if isinstance(value, list)]
            tables = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
            rows = tables[0] if tables else pd.DataFrame(rows).to_dict("records")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("no list of objects")
    frame = pd.json_normalize(rows)
    return frame.map(lambda cell: json.dumps(cell) if isinstance(cell, list | dict) else cell)


def _storage_file(text: str, file: str) -> Path:
    """Returns the file of a storage; a pathlib.Path has made one slash of the three or four."""
    candidates = [Path(file), Path("/" + file)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise UserError(f"--trials is {text!r}, which is no file, allowed: sqlite:///FILE or sqlite:///FILE#STUDY")
    return found


def _read_optuna(file: Path, name: str | None) -> Table:
    import optuna  # slow to import, and most tables are no studies of it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{file}"
    try:
        names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    except Exception as error:  # whatever the database driver raises
        reason = str(error).splitlines()[0]
        raise UserError(f"--trials is {str(file)!r} ({reason}), allowed: an Optuna storage") from None
    if name is None and len(names) != 1:
        raise UserError(
            f"--trials is {str(file)!r} with {len(names)} studies, allowed: FILE#STUDY of {', '.join(names)}"
        )
    if name is not None and name not in names:
        raise one_of("study in --trials", name, names)
    return from_optuna(optuna.load_study(study_name=name or names[0], storage=storage))


def from_optuna(study: Any) -> Table:
    """Returns the table of an optuna.Study, with the scales on which its numbers were searched."""
    frame = study.trials_dataframe()
    scales: dict[str, str] = {}
    for trial in study.trials:
        for parameter, distribution in trial.distributions.items():
            if hasattr(distribution, "log"):
                scales[parameter] = "log" if distribution.log else "linear"
    directions = ", ".join(direction.name.lower() for direction in study.directions)
    return Table(frame, scales, [f"Optuna study {study.study_name!r}, searched to {directions}"])
