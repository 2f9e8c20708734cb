"""The directory of a study: that it can be written, what it is a study of, and how much it holds."""

import dataclasses
import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

from finetune import __version__, records
from finetune.config import Config
from finetune.errors import UserError
from finetune.subject import Subject

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def prepare(workdir: Path) -> None:
    """Creates `workdir`; raises UserError if it is a file or cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.write_text("")
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--workdir is {str(workdir)!r}, which is a file, allowed: a directory") from None
    except OSError as error:
        raise UserError(f"--workdir is {str(workdir)!r}: {error.strerror}, allowed: a writable directory") from None


def begin(config: Config, workdir: Path, subject: Subject, axes: dict[str, Any]) -> None:
    """Writes config.json and the tokenizer; raises UserError if the directory holds a study of something else."""
    file = workdir / "config.json"
    if file.exists():
        _check_same(records.read_document(file), subject, workdir)
    document = {
        "command": sys.argv,
        "config": dataclasses.asdict(config),
        "axes": axes,
        "versions": {"finetune": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "architecture": subject.architecture,
        "classes": subject.dataset.classes,
        "fingerprint": subject.fingerprint,
        "description": subject.description,
    }
    records.write(file, document)
    if subject.tokenizer is not None and subject.tokenizer.resolve() != (workdir / "tokenizer.json").resolve():
        shutil.copyfile(subject.tokenizer, workdir / "tokenizer.json")


def _check_same(earlier: dict[str, Any], subject: Subject, workdir: Path) -> None:
    found = earlier.get("description")
    description = found if isinstance(found, dict) else {}
    differing = [name for name, value in subject.description.items() if description.get(name) != value]
    if differing:
        raise UserError(
            f"--workdir is {str(workdir)!r}, which holds a study that differs in {', '.join(differing)}, "
            "allowed: a new directory, or the settings of that study"
        )


def size_bytes(workdir: Path) -> int:
    """Returns the bytes of all files under `workdir`."""
    return sum(file.stat().st_size for file in workdir.rglob("*") if file.is_file())
