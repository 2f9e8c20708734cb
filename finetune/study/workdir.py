"""The directory of a study: that it can be written, what it is a study of, and how much it holds."""

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from finetune.config import Config
from finetune.data import text
from finetune.errors import UserError
from finetune.hosts.versions import versions
from finetune.storage import files, records
from finetune.study.problem import Subject
from finetune.trials import command, grid

_APPENDED = ("lock", "trials.jsonl", "curves.jsonl")  # files that are written where they lie
FORMAT = 3  # of the files of a study; 1 had no checksums, 2 other orders of examples


def checked(workdir: object) -> Path:
    """Returns the path of a work directory; raises UserError for what is none."""
    if not isinstance(workdir, str | os.PathLike):
        raise UserError(f"workdir is {workdir!r}, allowed: the path of a directory")
    return Path(workdir)


def prepare(workdir: Path) -> None:
    """Creates `workdir`; raises UserError if it is a file, cannot be written, or holds what no study writes to."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--workdir is {str(workdir)!r}, which is a file, allowed: a directory") from None
    except OSError as error:
        raise UserError(f"--workdir is {str(workdir)!r}: {error.strerror}, allowed: a writable directory") from None
    for name in _APPENDED:
        if not files.is_own(workdir / name):
            raise UserError(f"{workdir / name} is no file of a study, allowed: a plain file, not a link, or none")
    if os.path.lexists(workdir / "checkpoints") and not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir / 'checkpoints'} is no directory, allowed: one, as a study left it, or none")


def begin(config: Config, workdir: Path, subject: Subject, axes: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Writes config.json and the tokenizer, and removes what a crash left half-written.

    Raises UserError if the directory holds a study of something else, or one of another format.
    """
    _check_same(workdir, subject, tell)
    for name in ("*.new", "checkpoints/**/*.orbax-checkpoint-tmp*"):
        for path in list(workdir.glob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    document = {
        "format": FORMAT,
        "command": sys.argv,
        "started_by": (found := command.parse(sys.argv)) and found._asdict(),
        "config": dataclasses.asdict(config),
        "axes": axes,
        "versions": versions(),
        "devices": [str(device) for device in jax.devices()],
        "architecture": subject.architecture,
        "classes": subject.dataset.classes,
        "splits": {name: len(getattr(subject.dataset, name)["label"]) for name in ("train", "validation", "test")},
        "inputs": _shapes(subject.dataset.train),
        "data": {**subject.dataset.facts, "notes": subject.dataset.notes},
        "target": subject.target._asdict(),
        "larger_is_better": subject.larger_is_better,
        "fingerprint": subject.fingerprint,
        "description": subject.description,
    }
    records.write(workdir / "config.json", document)
    if subject.tokenizer is not None and subject.tokenizer.resolve() != (workdir / "tokenizer.json").resolve():
        _write_tokenizer(subject.tokenizer, workdir / "tokenizer.json")


def _shapes(split: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Returns shape and dtype of one example's arrays, its label's too."""
    return {name: {"shape": list(array.shape[1:]), "dtype": array.dtype.name} for name, array in split.items()}


def _write_tokenizer(source: Path, target: Path) -> None:
    """Copies a tokenizer in one step, with what files beside it declare written into it."""
    try:
        files.replace(target, text.document(source))
    except OSError as error:
        raise records.unwritable(target, error) from None


def _check_same(workdir: Path, subject: Subject, tell: Callable[[str], None]) -> None:
    """Raises UserError unless `workdir` holds a study of this subject, or none."""
    file = workdir / "config.json"
    try:
        earlier = records.read_document(file)
    except UserError:
        if records.is_unsealed(file):
            raise _other_format(workdir, 1) from None
        if not records.is_whole(workdir / "plan.json") and not records.lines(workdir / "trials.jsonl").rows:
            raise UserError(
                f"{file} was not written by a study, allowed: a new directory, or the work directory of a study"
            ) from None
        _check_unnamed(workdir, subject)
        tell(f"{file} was damaged and is written again")
        return
    if not earlier:
        _check_unnamed(workdir, subject)
        return
    if earlier.get("format") != FORMAT:
        raise _other_format(workdir, earlier.get("format"))
    found = earlier.get("description")
    description = found if isinstance(found, dict) else {}
    differing = [name for name, value in subject.description.items() if description.get(name) != value]
    if differing:
        raise UserError(
            f"--workdir is {str(workdir)!r}, which holds a study that differs in {', '.join(differing)}, "
            "allowed: a new directory, or the settings of that study"
        )


def _other_format(workdir: Path, found: Any) -> UserError:
    return UserError(
        f"--workdir is {str(workdir)!r}, a study of format {found!r}, allowed: format {FORMAT}; "
        "use a new directory, or the version of finetune that wrote it"
    )


def _check_unnamed(workdir: Path, subject: Subject) -> None:
    """Raises UserError where no config.json says what was studied, and the trials are not of this subject."""
    rows = records.lines(workdir / "trials.jsonl").rows
    records.check_trials(workdir, rows)
    if any(row["id"] != grid.from_row(row["hparams"]).id(subject.fingerprint) for row in rows):
        raise UserError(f"--workdir is {str(workdir)!r}, which holds trials of another study and no config.json, "
                        "allowed: a new directory, or the settings of that study")  # fmt: skip


def size_bytes(workdir: Path) -> int:
    """Returns the bytes of all files under `workdir`."""
    return sum(file.stat().st_size for file in workdir.rglob("*") if file.is_file())
