"""The chunks of a group that are left to train: what was on its way, what was planned before, and what is new."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune.hosts import processes
from finetune.member.step import init_member
from finetune.population.group import Group
from finetune.population.parallel import padded_size
from finetune.population.train import Entry, Population, Start, begin
from finetune.storage import snapshot
from finetune.storage.snapshot import Snapshot
from finetune.study import plan
from finetune.trials import hparams
from finetune.trials.grid import Trial

_CALL_SECONDS = 1.0  # of training between two moments at which it may be left


class Chunk(NamedTuple):
    """Trials of a group that train together, once it is measured; with a snapshot, they go on from there."""

    group: Group
    trials: Mapping[str, Trial]  # by id
    snapshot: Snapshot | None = None


def chunks_left(
    group: Group, finished: Mapping[str, Trial], planned: Iterable[Sequence[str]], running: Snapshot | None,
    compared: bool = False,
) -> list[Chunk]:  # fmt: skip
    """Returns the chunks in which the trials that are left of a measured group are trained.

    A chunk that was planned before, or is on its way, keeps its places, those that have `finished` included: in a
    vmapped program they cost nothing, and with the same places the others' results are the same to the bit. So does one
    whose trials are `compared` with each other on their way.
    """
    size, left = group.execution.size, dict(group.trials)
    known = {**finished, **left} if group.layout.together or compared else left
    chunks = []
    for ids, start in ([(running.ids, running)] if running else []) + [(ids, None) for ids in planned]:
        there = [identity for identity in ids if identity in known]
        for part in (there[i : i + size] for i in range(0, len(there), size)):
            if not left.keys().isdisjoint(part):
                chunks.append(Chunk(group, {identity: known[identity] for identity in part}, start))
            known = {identity: trial for identity, trial in known.items() if identity not in part}
            left = {identity: trial for identity, trial in left.items() if identity not in part}
    names = {id(trial): identity for identity, trial in left.items()}
    new = plan.chunks_of(list(left.values()), size)[0] if left else []
    return chunks + [Chunk(group, {names[id(trial)]: trial for trial in part}) for part in new]


def start(chunk: Chunk, starts: Callable[[], Mapping[str, Start]]) -> Population:
    """Returns a chunk on the devices, where it was left or before its first update.

    starts: gives, where it is before that, what trials start from that go on from others.
    """
    size = chunk.group.execution.size if chunk.group.layout.together else len(chunk.trials)
    continued = _continue(chunk, chunk.snapshot, size) if chunk.snapshot else None
    return continued or begin(chunk.group, chunk.trials, size, starts())


def _continue(chunk: Chunk, found: Snapshot, size: int) -> Population | None:
    """Returns a chunk where it was left, None if its snapshot does not fit the program."""
    group = chunk.group
    size = padded_size(min(max(found.size, len(chunk.trials)), size), group.layout)
    places = [found.ids.index(identity) for identity in chunk.trials]
    if size == found.size and places == list(range(len(found.ids))):
        places = list(range(size))  # ghosts too
    places += places[:1] * (size - len(places))
    values = hparams.stack([next(iter(chunk.trials.values())).hparams], 1)
    scalars = jax.tree.map(lambda leaf: leaf[0], values)
    template = jax.eval_shape(functools.partial(init_member, group.recipe), group.shared, scalars)
    leaves = snapshot.load(found, template, places) if processes.is_first() else None
    if processes.from_first("whether a snapshot fits", str(leaves is not None)) == "False":
        return None
    shapes = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape), leaf.dtype), template)
    members = group.programs.put(processes.arrays_from_first("a snapshot", shapes if leaves is None else leaves))
    left = {
        identity: (list(curve), line)
        for identity, curve, line in zip(found.ids, found.curves, found.parents, strict=True)
    }
    entries = [Entry(trial, identity, *left[identity]) for identity, trial in chunk.trials.items()]
    return Population(members, entries, size, found.epoch, found.micro_batches)


def steps_a_call(group: Group) -> int:
    """Returns how many micro-batches train before it is looked whether to stop; the same on every process."""
    return max(1, int(_CALL_SECONDS / max(group.cost.train_step_seconds, 1e-9)))


def snapshot_of(population: Population, signature: Mapping[str, Any]) -> Snapshot:
    """Returns what a population's table says."""
    # Copies of the curves: a snapshot is written while training goes on and adds to them.
    ids, curves = [entry.id for entry in population.places], [list(entry.curve) for entry in population.places]
    parents = [list(entry.line) for entry in population.places]
    return Snapshot(dict(signature), ids, curves, parents, population.size, population.epoch, population.micro_batches)
