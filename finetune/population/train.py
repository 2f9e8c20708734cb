"""One chunk of a group from start to end: train, validate, keep the best, let the finished go, until none is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune.hosts import processes
from finetune.member import lora
from finetune.member.epoch import Report, epoch_order, make_order
from finetune.member.step import QUANTITIES
from finetune.population.group import Group
from finetune.population.parallel import OneDevice, padded_size
from finetune.search.halving import Halving, Runner, Verdict
from finetune.storage import records
from finetune.trials import hparams
from finetune.trials.grid import Trial

Row = dict[str, Any]
Leaves = dict[str, np.ndarray]


class Entry(NamedTuple):
    """A trial on its way through a chunk, with the rows of curves.jsonl that it has left so far."""

    trial: Trial
    id: str
    curve: list[Row]
    line: Sequence[str] = ()  # the trial that it started from, what that one started from, and so on


class Start(NamedTuple):
    """What a trial starts from that goes on from another one: see `Entry`, and the leaves to start with."""

    line: Sequence[str]
    leaves: Leaves  # at least those that the trial trains; what the first process holds is taken


class Population(NamedTuple):
    """Trials of a chunk at a moment of their training."""

    members: Any  # on the devices
    places: list[Entry]  # which trial each member is; those beyond the last are ghosts
    size: int  # members, ghosts included
    epoch: int = 0  # how many are done
    micro_batches: int = 0  # how many micro-batches of the next epoch are done


class Listener(NamedTuple):
    """What a chunk tells while it trains.

    epoch: (rows of curves.jsonl), after every epoch.
    left: (rows of trials.jsonl, leaves), when trials end; leaves(id) are the (best, last) leaves of one of them.
    pause: (population), wherever training may be left and continued.
    halving: what stops trials before their end; None: nothing does.
    """

    epoch: Callable[[list[Row]], None]
    left: Callable[[list[Row], Callable[[str], tuple[Leaves, Leaves]]], None]
    pause: Callable[[Population], None]
    halving: Halving | None = None


def begin(group: Group, trials: Mapping[str, Trial], size: int, starts: Mapping[str, Start]) -> Population:
    """Returns trials by id that share a data_seed before their first update, in `size` >= their number places.

    starts: by id, of those that go on from another trial.
    """
    members = group.programs.init(group.shared, hparams.stack([trial.hparams for trial in trials.values()], size))
    lines = {identity: start.line for identity, start in starts.items()}
    entries = [Entry(trial, identity, [], lines.get(identity, ())) for identity, trial in trials.items()]
    if starts:
        places = {place: starts[identity].leaves for place, identity in enumerate(trials) if identity in starts}
        members = _put_leaves(group, members, places)
    return Population(members, entries, size)


def _put_leaves(group: Group, members: Any, leaves: Mapping[int, Leaves]) -> Any:
    """Returns members with leaves of their own at some places; others keep what they have.

    An optimizer's state before the first update does not depend on the parameters, so that it stays.
    """
    tree = group.programs.fetch(members)
    for of_members in (tree.params, tree.state, tree.best.params):
        for path, leaf in of_members.items():
            own = np.array(leaf)  # what is fetched may be the device's own memory
            for place, start in leaves.items():
                own[place] = start.get(path, own[place])
            of_members[path] = own
    return group.programs.put(processes.arrays_from_first("leaves to start from", tree))


def train_chunk(group: Group, population: Population, steps_a_call: int, listener: Listener) -> float:
    """Trains a population to its end, in calls of at most `steps_a_call` micro-batches.

    Tells `listener` of every call and epoch, and of every trial when it ends. Returns the seconds that were spent on
    evaluation.
    """
    validation = whole_pass(group, group.splits.validation)
    evaluating = 0.0
    while population.places:
        population = _train_epoch(group, population, steps_a_call, listener)
        started = time.monotonic()
        population = _end_epoch(group, population, validation, listener)
        evaluating += time.monotonic() - started
        if population.places:
            listener.pause(population)
    return evaluating


def _train_epoch(group: Group, population: Population, steps_a_call: int, listener: Listener) -> Population:
    """Returns a population after the micro-batches that are left of its epoch."""
    data_seed = int(population.places[0].trial.hparams["data_seed"])
    order = epoch_order(data_seed, population.epoch, group.recipe.examples, group.recipe.micro_batch)
    steps, on_devices = len(order.examples), group.layout.put_order(order)
    while population.micro_batches < steps:
        stop = min(population.micro_batches + steps_a_call, steps)
        bounds = np.int32(population.epoch), np.int32(population.micro_batches), np.int32(stop)
        members = group.programs.train(population.members, group.shared, group.splits.train, on_devices, *bounds)
        population = population._replace(members=jax.block_until_ready(members), micro_batches=stop)
        if stop < steps:
            listener.pause(population)
    if group.recipe.reestimate:
        bounds = np.int32(population.epoch), np.int32(0), np.int32(min(group.recipe.reestimate, steps))
        arguments = population.members, group.shared, group.splits.train, on_devices, *bounds
        population = population._replace(members=group.programs.reestimate(*arguments))
    return population


def _end_epoch(group: Group, population: Population, validation: Any, listener: Listener) -> Population:
    """Returns a population after its validation; once half of it are done, without those that are."""
    _, places, size, epoch, _ = population
    epoch += 1
    members, report = group.programs.validate(population.members, group.shared, *validation, np.int32(epoch))
    report = processes.arrays_from_first("how members stand", report)
    listener.epoch(_record_epoch(places, epoch, report))
    stops = listener.halving is not None and _halve(listener.halving, places, epoch, report)
    alive = [i for i, entry in enumerate(places) if _status(entry, epoch, report, i) is None]
    smaller = shrunk(len(alive), size, group.layout) if group.layout.together or not stops else len(alive)
    if smaller < size or stops:  # one that is stopped has its place in the program no longer, where it would go on
        _let_go(group, members, places, epoch, report, listener)
        places, size = [places[i] for i in alive], smaller
        if places:
            members = group.programs.take(members, [*alive, *alive[:1] * (size - len(alive))])
    return Population(members, places, size, epoch)


def _halve(halving: Halving, places: Sequence[Entry], epoch: int, report: Report) -> bool:
    """Notes in the curves of trials which of them are out after an epoch, and says whether any of them stops."""
    runners = {
        entry.id: Runner(int(entry.trial.hparams["epochs"]), float(report.best_value[i]))
        for i, entry in enumerate(places)
        if _status(entry, epoch, report, i) is None and _out(entry) is None
    }
    verdicts = halving.verdicts(epoch, runners)
    for entry in places:
        if entry.id in verdicts:
            entry.curve[-1] |= {"out": list(verdicts[entry.id]), "control": halving.is_control(entry.id)}
    return any(not halving.is_control(identity) for identity in verdicts)


def _out(entry: Entry) -> Verdict | None:
    """Returns what a rung has said of a trial that was not to go on."""
    found = next((row["out"] for row in entry.curve if "out" in row), None)
    return Verdict(*found) if found else None


def shrunk(alive: int, size: int, layout: OneDevice) -> int:
    """Returns how large a population of `size` places should be for `alive` members: once half are gone, less."""
    if 2 * alive > size:
        return size
    return min(size, padded_size(1 << (alive - 1).bit_length(), layout)) if alive else 0


def whole_pass(group: Group, split: dict[str, Any]) -> tuple[dict[str, Any], Any, np.int32]:
    """Returns (split, order, number of batches) of one reading of a split, as it stands."""
    examples = len(split["label"])
    order = make_order(np.arange(examples), min(group.eval_batch, examples))
    return split, group.layout.put_order(order), np.int32(len(order.examples))


def _status(entry: Entry, epoch: int, report: Report, i: int) -> str | None:
    """Returns the status with which a trial has ended, None while it trains."""
    if report.diverged_update[i] >= 0:
        return records.DIVERGED
    if entry.curve and "out" in entry.curve[-1] and not entry.curve[-1]["control"]:
        return records.STOPPED
    return records.COMPLETE if epoch >= entry.trial.hparams["epochs"] else None


def _record_epoch(places: Sequence[Entry], epoch: int, report: Report) -> list[Row]:
    """Returns this epoch's row of every member that trained in it, and notes it in the member's curve."""
    rows = []
    for i, entry in enumerate(places):
        if (entry.curve and entry.curve[-1]["diverged"]) or epoch > entry.trial.hparams["epochs"]:
            continue
        row = {
            "id": entry.id,
            "epoch": epoch,
            "step": int(report.updates[i]),
            "train_loss": float(report.train_loss[i]),
        }
        row |= {f"val_{name}": float(values[i]) for name, values in report.metrics.items()}
        row |= {name: float(values[i]) for name, values in report.modes.items()}
        entry.curve.append({**row, "diverged": bool(report.diverged_update[i] >= 0)})
        rows.append(row)
    return rows


def _let_go(
    group: Group, members: Any, places: Sequence[Entry], epoch: int, report: Report, listener: Listener
) -> None:
    """Tells `listener` of every trial that has ended, with its metrics on the test split."""
    test = group.programs.test(members, group.shared, *whole_pass(group, group.splits.test))
    rows = []
    for i, entry in enumerate(places):
        status = _status(entry, epoch, report, i)
        if status is not None:
            row = _trial_row(entry, status, report, i, {name: float(test[name][i]) for name in test})
            rows.append(_with_halving(row, entry, listener.halving) if listener.halving else row)
    where = {entry.id: i for i, entry in enumerate(places)}

    def leaves(identity: str) -> tuple[Leaves, Leaves]:
        copies = [where[identity]] * padded_size(1, group.layout)
        member = group.programs.fetch(group.programs.take(members, copies))
        rank = int(places[where[identity]].trial.hparams["lora_rank"])
        best, last = ({path: leaf[0] for path, leaf in each.items()} for each in (member.best.params, member.leaves))
        return lora.of_rank(best, rank), lora.of_rank(last, rank)

    listener.left(rows, leaves)


def _trial_row(entry: Entry, status: str, report: Report, i: int, test: dict[str, float]) -> Row:
    best_epoch = int(report.best_epoch[i])
    best = next((row for row in entry.curve if row["epoch"] == best_epoch), None)
    metrics = {name: value for name, value in (best or {}).items() if name.startswith(("val_", "train_"))}
    if best is not None:
        metrics |= {f"test_{name}": value for name, value in test.items()}
    row = {
        "id": entry.id,
        "hparams": entry.trial.told,
        "seed": entry.trial.hparams["seed"],
        "status": status,
        "metrics": metrics,
        "best": {"epoch": best_epoch, "step": best["step"], "value": float(report.best_value[i])} if best else None,
        "last": {name: value for name, value in entry.curve[-1].items() if name.startswith(("val_", "train_"))},
        "steps": int(report.updates[i]),
        "reason": None,
        **({"parent": entry.line[0], "ancestors": list(entry.line[1:])} if entry.line else {}),
    }
    if status == records.DIVERGED:
        quantity = QUANTITIES[int(report.diverged_quantity[i])]
        row["reason"] = f"{quantity} not finite at update {int(report.diverged_update[i])}"
    return row


def _with_halving(row: Row, entry: Entry, halving: Halving) -> Row:
    """Returns a row of trials.jsonl that says how halving treated the trial; of one that it stopped, no result."""
    out = _out(entry)
    row["halving"] = {"control": halving.is_control(entry.id), "out": out._asdict() if out else None}
    if row["status"] != records.STOPPED:
        return row
    assert out is not None
    return {**row, "metrics": {}, "best": None, "reason": out.in_words(int(entry.trial.hparams["epochs"]))}
