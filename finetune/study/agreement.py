"""What the processes of a study must agree on, compared before anything is trained: a difference is told in one line.

Programs that exchange values have the same shapes on every process only if all of this is the same. Versions are
compared where processes meet (meeting.py), before they start JAX.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from finetune import config as settings
from finetune.config import Config
from finetune.errors import UserError
from finetune.hosts import processes
from finetune.models.weights.pretrained import leaves_hash
from finetune.study.problem import Subject
from finetune.trials.grid import Trial, digest

# Settings of JAX that change what a program computes.
_OF_JAX = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")
_OF_ONE_MACHINE = ("trunk.store", "trunk.store_gigabytes")  # settings that may differ: no result depends on them
_DIGITS, _LISTED, _LONGEST = 12, 5, 100  # of a digest; further differences; characters of a value


def check_command(config: Config, trials: Sequence[Trial], choices: Mapping[str, Any]) -> None:
    """Raises UserError, on every process, if their devices, settings or grids differ.

    choices: further flags by name.
    """
    if processes.here().count == 1:
        if jax.process_count() > 1:
            raise UserError(f"jax.distributed has joined {jax.process_count()} processes, allowed: none but those "
                            "that --coordinator, --processes and --process bring together")  # fmt: skip
        return
    if 0 < config.execution.devices < jax.device_count():
        raise UserError(f"execution.devices is {config.execution.devices}, allowed with several processes: 0 = all")
    found = {name: getattr(jax.config, name) for name in _OF_JAX}
    found |= {"kind of devices": jax.local_devices()[0].device_kind, "number of devices": jax.local_device_count()}
    found |= {name: value for name, value in settings.fields(config) if name not in _OF_ONE_MACHINE}
    found |= choices
    number = f"{len(trials)} trial{'s' * (len(trials) > 1)}"
    found["grid"] = f"{number} (digest {digest([trial.id('') for trial in trials])})"
    _compare("settings", found)


def agreed(subject: Subject) -> Subject:
    """Returns the subject of a study; raises UserError, on every process, if their data, weights or models differ."""
    if processes.here().count == 1:
        return subject
    train, validation, test = (len(split["label"]) for split in subject.dataset[:3])
    sizes = f"{train:,} training, {validation:,} validation and {test:,} test examples"
    found = {"data": f"{sizes} (digest {subject.dataset.content_hash[:_DIGITS]})"}
    found |= {name: value for name, value in subject.description.items() if name not in found}
    found["leaves before training"] = f"{len(subject.base)} (digest {leaves_hash(subject.base)[:_DIGITS]})"
    _compare("data and model", found)
    return subject


def _compare(about: str, mine: Mapping[str, Any]) -> None:
    told = json.dumps({name: value if isinstance(value, str) else repr(value) for name, value in mine.items()})
    everybody = [json.loads(word) for word in processes.here().of_all(about, told)]
    if line := difference(everybody):
        raise processes.Disagreement(line)


def difference(everybody: Sequence[Mapping[str, str]]) -> str:
    """Returns a line that says what differs between processes, given what each says by name; empty if nothing does."""
    first, *others = everybody
    for process, other in enumerate(others, 1):
        names = [name for name in [*first, *(other.keys() - first.keys())] if first.get(name) != other.get(name)]
        if names:
            mine, theirs = (_shown(each.get(names[0])) for each in (first, other))
            more = f"; {', '.join(names[1 : 1 + _LISTED])} too" if names[1:] else ""
            return (f"{names[0]} differs between processes: process 0 has {mine}, process {process} has {theirs}"
                    f"{more}, allowed: the same command and files everywhere")  # fmt: skip
    return ""


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… (digest {digest(value)})"
