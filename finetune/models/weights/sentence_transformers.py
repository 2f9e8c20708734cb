"""What a directory of sentence-transformers declares beside its encoder: modules, pooling, the length of texts."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import UserError
from finetune.models.weights.preprocessor import Preparation

FILE = "modules.json"
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
_ALLOWED = "allowed: the file as sentence-transformers wrote it"
_PROMPTS = "config_sentence_transformers.json"
_OURS = {"cls": "first", "mean": "mean", "max": "max"}  # their pooling mode -> model.pooling
# Older files hold a flag for each mode.
_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
_FLAGS |= {"pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_lasttoken": "lasttoken"}
_FLAGS |= {"pooling_mode_weightedmean_tokens": "weightedmean"}


class Declared(NamedTuple):
    """Settings that weights come with, None where they say nothing, and what the user is told of the others.

    binding: whether a setting of the user that contradicts them is refused. images: how they are prepared.
    """

    pooling: str | None = None
    max_length: int | None = None
    notes: tuple[str, ...] = ()
    binding: bool = True
    images: Preparation = Preparation()


def encoder_directory(directory: Path) -> Path:
    """Returns where the encoder of a directory lies: in older ones 0_Transformer, else the directory itself."""
    return _module(directory, _TRANSFORMER) or directory


def declared(directory: Path) -> Declared:
    """Returns what a directory with modules.json declares.

    Raises UserError for a file that is damaged, a module that this project has not, such as Dense, and a pooling that
    is not one of cls, mean and max.
    """
    notes = []
    for kind in _modules(directory):
        if kind == _NORMALIZE:
            notes.append(f"{directory / FILE}: {kind} is not applied, the new head reads what is pooled")
        elif kind not in (_TRANSFORMER, _POOLING):
            raise UserError(
                f"{directory / FILE} has the module {kind!r}, allowed: {_TRANSFORMER}, {_POOLING}, {_NORMALIZE}"
            )
    prompt = _read(directory / _PROMPTS).get("default_prompt_name")
    if prompt is not None:
        notes.append(f"{directory / _PROMPTS}: the prompt {prompt!r} is not put before texts")
    return Declared(_pooling(directory), _max_length(encoder_directory(directory)), tuple(notes))


def _modules(directory: Path) -> dict[str, str]:
    """Returns {kind of module: its path}, in order."""
    file = directory / FILE
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
        found = {str(row["type"]).rpartition(".")[2]: str(row["path"]) for row in rows}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}), {_ALLOWED}") from None
    for path in found.values():
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise UserError(f"{file} names the directory {path!r}, allowed: those below it")
    return found


def _module(directory: Path, kind: str) -> Path | None:
    path = _modules(directory).get(kind)
    return None if path is None else directory / path


def _pooling(directory: Path) -> str | None:
    module = _module(directory, _POOLING)
    if module is None:
        return None
    file = module / "config.json"
    settings = _read(file)
    if "pooling_mode" in settings:
        mode = settings["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode or ())
    else:
        # Pooling averages unless its settings say otherwise.
        flags = {"pooling_mode_mean_tokens": True} | settings
        modes = [mode for flag, mode in _FLAGS.items() if flags.get(flag)]
    if len(modes) != 1 or modes[0] not in _OURS:
        raise UserError(f"{file} pools by {' and '.join(map(str, modes)) or 'nothing'}, allowed: {', '.join(_OURS)}")
    return _OURS[modes[0]]


def _max_length(encoder: Path) -> int | None:
    file = encoder / "sentence_bert_config.json"
    length = _read(file).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise UserError(f"{file}: max_seq_length is {str(length)[:40]}, allowed: a whole number, 1 or more, or null")
    return length


def _read(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file, {} if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no JSON object, {_ALLOWED}")
    return found
