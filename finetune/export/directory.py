"""What leaves a study: a trial as a model of its own, in a new directory."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.analysis import recommendation
from finetune.analysis.table import trials
from finetune.errors import UserError, one_of
from finetune.export.card import Repeats, write_card
from finetune.models.weights import exported, from_study, peft
from finetune.storage import checkpoint, records
from finetune.study import user_task

# Settings of data that a model needs to run on new inputs.
_OF_TEXTS = ("text_column", "text_columns", "max_length")
_OF_IMAGES = ("image_size", "image_resampling", "image_crop", "image_aspect")
_OF_DATA = ("task", "label_separator", *_OF_TEXTS, *_OF_IMAGES)


class Chosen(NamedTuple):
    """A trial of a study: its row of trials.jsonl, and what the rows that differ by seeds alone say together.

    use: ids of the trials of the setting that the answer says to use; none where no trial came to a result.
    """

    row: dict[str, Any]
    repeats: Repeats
    use: tuple[str, ...]


def export(workdir: Path, to: Path, trial: str = "", adapter: bool = False) -> Chosen:
    """Writes a trial of a study to the directory `to`, whole or not at all.

    trial: id, of one whose weights were kept; empty = of the setting that the answer says to use; where none of its
        trials was kept, of one that may be as good, else of the best mean over seeds.
    adapter: only the trial's adapters, as models/weights/peft.py writes them.

    Raises UserError for a study, a trial or a directory that cannot be used.
    """
    _check_free(to)
    document = _read_study(workdir)
    chosen = _choose(workdir, trial)
    fresh = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        fresh.mkdir(parents=True)
        (_write_adapter if adapter else _write_model)(fresh, workdir, document, chosen)
        os.replace(fresh, to)
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}: {error.strerror}, allowed: a directory that can be written") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return chosen


def _write_model(directory: Path, workdir: Path, document: dict[str, Any], chosen: Chosen) -> None:
    leaves = {path: np.asarray(leaf) for path, leaf in from_study.load_trial(workdir, chosen.row["id"]).items()}
    leaves, tokenizer = _in_units(leaves, document), workdir / "tokenizer.json"
    exported.write(directory, _describe(workdir, document, chosen), leaves, tokenizer if tokenizer.is_file() else None)
    checkpoint.save(directory / "orbax", leaves)
    write_card(directory / "README.md", document, chosen.row, chosen.repeats)


def _write_adapter(directory: Path, workdir: Path, document: dict[str, Any], chosen: Chosen) -> None:
    stored = workdir / "checkpoints"
    leaves, frozen = (
        {path: np.asarray(leaf) for path, leaf in checkpoint.load(each).items()}
        for each in (stored / "trials" / chosen.row["id"] / "best", stored / "base")
    )
    peft.write(
        directory,
        document["architecture"]["model"],
        document["config"]["model"]["pretrained"],
        _in_units(leaves, document),
        frozen,
        chosen.row["hparams"],
        from_study.lora_scaling(workdir),
        exported.class_of(document["architecture"], document["config"], document["classes"]),
    )


def base_model(document: dict[str, Any]) -> str:
    """Returns, in Python, the model of transformers that adapters of a study are for."""
    name = exported.class_of(document["architecture"], document["config"], document["classes"])
    source = document["config"]["model"]
    if name is None:
        return f"AutoModel.from_pretrained({source['pretrained']!r})"
    return f"{name}.from_pretrained({source['pretrained']!r}, num_labels={max(len(document['classes']), 1)})"


def _in_units(leaves: dict[str, np.ndarray], document: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the leaves of a model whose outputs are in the units of the labels: of a regression the head's change."""
    if (
        document["config"]["data"]["task"] != "regression"
        or document["architecture"]["model"] == user_task.ARCHITECTURE
    ):
        return leaves  # a task of the user's own gives what its loss compares with the labels
    mean, scale = (np.float32(document["target"][name]) for name in ("mean", "scale"))
    return leaves | {
        "head/kernel": leaves["head/kernel"] * scale,
        "head/bias": leaves["head/bias"] * scale + mean,
    }


def _check_free(to: Path) -> None:
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(f"--to is {str(to)!r}, which is there already, allowed: a new or an empty directory")


def _read_study(workdir: Path) -> dict[str, Any]:
    """Returns config.json of a study; raises UserError if there is none, or one without what an export needs."""
    if not (workdir / "config.json").is_file():
        raise UserError(f"WORKDIR is {str(workdir)!r}, which holds no study, allowed: the work directory of one")
    document = records.read_document(workdir / "config.json")
    try:
        document["architecture"]["model"], document["description"]["data"], document["description"]["weights"]
        _settings(document)
        if not isinstance(document["classes"], list) or not isinstance(document["command"], list):
            raise TypeError("classes and command are lists")
    except (KeyError, TypeError) as error:
        file = workdir / "config.json"
        raise UserError(f"{file} lacks {error}, allowed: the file as this version of finetune wrote it") from None
    return document


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    """Returns those settings of a study that its model needs to run on new inputs."""
    model, data = document["config"]["model"], document["config"]["data"]
    return {
        "model": {name: model[name] for name in ("dtype", "pooling")},
        "data": {name: data[name] for name in _OF_DATA if data.get(name) not in (None, [])},  # not in earlier versions
    }


def _choose(workdir: Path, trial: str) -> Chosen:
    rows = {row["id"]: row for row in records.read_trials(workdir)}  # the last row of an id counts
    kept = [identity for identity, _ in checkpoint.kept(workdir)]
    if not kept:
        raise UserError(f"study {str(workdir)!r} keeps no trial's weights, allowed: one with checkpoint.keep above 0")
    if trial and trial not in rows:
        raise one_of("--trial", trial, kept)
    if trial and trial not in kept:
        raise UserError(f"--trial is {trial!r}, whose weights were not kept, allowed: {', '.join(kept)}")
    repeats = {identity: Repeats.of(rows[identity], list(rows.values())) for identity in kept}
    order = _answered(workdir)
    placed = {identity: -place for place, ids in reversed([*enumerate(order)]) for identity in ids}

    def merit(identity: str) -> tuple[Any, ...]:
        place = placed.get(identity, -len(order))
        return place, repeats[identity].order, rows[identity]["best"]["value"], identity

    chosen = trial or max(kept, key=merit)
    return Chosen(rows[chosen], repeats[chosen], order[0] if order else ())


def _answered(workdir: Path) -> list[tuple[str, ...]]:
    """Returns the ids of the trials of each setting that the answer names: what to use, then what is tied with it."""
    found = recommendation.advise(trials.read_study(workdir))
    return [setting.ids for setting in (found.choice, *found.tied) if setting is not None]


def _describe(workdir: Path, document: dict[str, Any], chosen: Chosen) -> dict[str, Any]:
    """Returns what finetune.json holds: all that it takes to run the model, and where it came from."""
    row = chosen.row
    return {
        "architecture": from_study.architecture(workdir),
        **_settings(document),
        "classes": document["classes"],
        "inputs": document.get("inputs", {}),  # a study of an earlier version says nothing of them
        "trial": {name: row[name] for name in ("id", "hparams", "metrics", "best", "steps")},
        "seeds": chosen.repeats.summary(),
        "hashes": {name: document["description"][name] for name in ("data", "weights")},
        "command": document["command"],
        "versions": document.get("versions", {}),
    }
