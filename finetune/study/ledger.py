"""What of a study is done: read when it starts, repaired where it is damaged, and added to as trials end."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune.config import CheckpointConfig
from finetune.errors import UserError, one_of
from finetune.hosts import processes
from finetune.population.train import Leaves, Row, Start
from finetune.storage import checkpoint, records, snapshot
from finetune.storage.snapshot import Snapshot
from finetune.study import conclusion
from finetune.trials import parents
from finetune.trials.grid import Trial
from finetune.trials.parents import Parents, line_of, values_of

_ATTEMPTS = 2  # of a trial that fails, in one run of the command each

Tell = Callable[[str], None]


class Before(NamedTuple):
    """What earlier runs have left: rows of trials.jsonl, groups of plan.json, weights, and what was being trained."""

    trials: list[Row]
    groups: list[dict[str, Any]]
    kept: dict[str, float]
    running: Snapshot | None


class Ledger:
    """The results of the trials `ids` in a work directory, and the weights of the best of them.

    ended: the statuses of trials that do not run again.
    """

    def __init__(
        self, workdir: Path, config: CheckpointConfig, ids: Mapping[str, Trial], retry: bool, tell: Tell,
        ended: Collection[str] = records.DONE,
    ):  # fmt: skip
        for identity in config.trials:
            if identity not in ids:
                raise one_of("checkpoint.trials", identity, ids)
        writes = processes.is_first()
        self.recorder = records.Recorder(workdir, writes)
        self._parents, self._keep = parents.find(ids), config.keep
        before = _agreed(lambda: _read(workdir, config.trials, ids, self._parents, self.recorder, tell, ended))
        self.groups, self.running = before.groups, before.running
        asked = {row["id"]: row for row in before.trials if row["id"] in ids}
        self.done = {identity: row for identity, row in asked.items() if row["status"] in ended}
        self.failed = {identity: row for identity, row in asked.items() if identity not in self.done}
        self._again = {each for each, row in self.failed.items() if retry or row.get("attempts", 0) < _ATTEMPTS}
        self._tell, self._doubtful = tell, set[str]()
        self._doubt()
        self._keeper = checkpoint.Keeper(workdir, config.keep, config.trials, before.kept, writes, self._needed)
        self._keeper.settle()

    def left(self, identity: str) -> bool:
        """Says whether a trial is still to be trained, or may be: see `settle`."""
        if identity in self.done:
            return identity in self._doubtful
        return identity not in self.failed or identity in self._again

    def _doubt(self) -> None:
        """Notes which trials that are done may have to start from others, once all that is left has ended."""
        self._doubtful |= self._parents.outdated(self.done)
        for identity in self._parents.generations():
            candidates = self._parents.candidates[self._parents.wanted[identity]]
            if identity in self.done and any(map(self.left, candidates)):
                self._doubtful.add(identity)

    def settle(self, trials: Collection[str]) -> list[Row]:
        """Decides which of `trials` are trained again, since others than they started from are the best now.

        All that they may start from has ended. Returns the rows of those that were in doubt and stand.
        """
        decided = self._doubtful.intersection(trials)
        again = decided & self._parents.outdated(self.done)
        for identity in again:
            del self.done[identity]
        if again:
            self._keeper.forget(again)
            self.recorder.trim("curves.jsonl", lambda row: row["id"] not in again, _id_and_epoch)
        self._doubtful -= decided
        _tell_again(again, self._tell)
        return [self.done[identity] for identity in trials if identity in decided - again]

    def certain(self) -> dict[str, Row]:
        """Returns the rows of trials that are done, whatever else ends."""
        return {identity: row for identity, row in self.done.items() if identity not in self._doubtful}

    def goes_on(self, running: Snapshot) -> bool:
        """Says whether the trials of a snapshot started from those that they would start from now."""
        values, lines = values_of(self.done.values()), dict(zip(running.ids, running.parents, strict=True))
        open_ids = [each for each in lines if each in self._parents.wanted and each not in self.done]
        return all(self._parents.line(each, self.done, values) == lines[each] for each in open_ids)

    def keeps(self, trials: Collection[str]) -> int:
        """Returns of how many of `trials` the weights are kept at most."""
        return self._keep + self._parents.families(trials)

    def _needed(self, values: Mapping[str, float]) -> set[str]:
        return self._parents.needed(values, self.certain())

    def orphans(self, trials: Mapping[str, Trial]) -> dict[str, str]:
        """Returns those of `trials` that have no trial to start from, and why not."""
        values = values_of(self.done.values())
        wanted = {each: self._parents.wanted[each] for each in trials if each in self._parents.wanted}
        return {
            identity: f"no trial of trainable {key[0]!r} with seed {key[1]} and data_seed {key[2]} has a result"
            for identity, key in wanted.items()
            if self._parents.parent(identity, values) is None
        }

    def starts(self, trials: Collection[str]) -> dict[str, Start]:
        """Returns what those of `trials` start from that go on from others and are not done."""
        values = values_of(self.done.values())
        open_ids = [each for each in trials if each in self._parents.wanted and each not in self.done]
        lines = {each: line for each in open_ids if (line := self._parents.line(each, self.done, values))}
        leaves = {parent: self._keeper.best_leaves(parent) for parent in {line[0] for line in lines.values()}}
        return {identity: Start(line, leaves[line[0]]) for identity, line in lines.items()}

    def epoch(self, rows: list[Row]) -> list[Row]:
        """Records rows of curves.jsonl; returns those of trials that were not done before."""
        rows = [row for row in rows if row["id"] not in self.done]
        self.recorder.append("curves.jsonl", rows)
        return rows

    def end(self, group: int, rows: list[Row], leaves: Callable[[str], tuple[Leaves, Leaves]]) -> list[Row]:
        """Records trials that have ended, and keeps the weights of the best; returns those not done before."""
        rows = [{"id": row["id"], "group": group, **row} for row in rows if row["id"] not in self.done]
        values = values_of(rows)
        for identity in self._keeper.wanted(values):
            self._keeper.take(identity, values[identity], *leaves(identity))
        self.recorder.append("trials.jsonl", rows)
        self.done |= {row["id"]: row for row in rows}
        for row in rows:
            self.failed.pop(row["id"], None)
        self._keeper.settle()  # what these trials started from may have been needed for them alone
        return rows

    def fail(self, group: int, trials: Mapping[str, Trial], reason: str) -> list[Row]:
        """Records trials that could not be trained, and returns their rows."""
        rows = [_failed_row(identity, group, trial, reason) for identity, trial in trials.items()]
        for row in rows:
            row["attempts"] = self.failed.get(row["id"], {}).get("attempts", 0) + 1
        self.recorder.append("trials.jsonl", rows)
        self.failed |= {row["id"]: row for row in rows}
        self._again.difference_update(trials)
        return rows

    def close(self) -> None:
        """Leaves one row a trial, and one a trial and epoch, where a trial has been tried again."""
        for name, key in (("trials.jsonl", _id), ("curves.jsonl", _id_and_epoch)):
            if self.recorder.writes and name in self.recorder.appended:
                self.recorder.trim(name, lambda row: True, key)


def _id(row: Row) -> Any:
    return row["id"]


def _id_and_epoch(row: Row) -> Any:
    return sys.intern(row["id"]), row["epoch"]  # one text for all epochs of a trial


def _failed_row(identity: str, group: int, trial: Trial, reason: str) -> Row:
    return {
        "id": identity,
        "group": group,
        "hparams": trial.told,
        "seed": trial.hparams["seed"],
        "status": records.FAILED,
        "metrics": {},
        "best": None,
        "last": {},
        "steps": 0,
        "reason": reason,
    }


def _agreed(read: Callable[[], Before]) -> Before:
    """Returns what the first process reads, on every process."""
    found = read()._asdict() if processes.is_first() else {}
    found = json.loads(processes.from_first("what is done", json.dumps(found)))
    running = found.pop("running")
    return Before(**found, running=Snapshot(*running) if running else None)


def _read(
    workdir: Path, named: Collection[str], ids: Mapping[str, Trial], families: Parents, recorder: records.Recorder,
    tell: Tell, ended: Collection[str],
) -> Before:  # fmt: skip
    """Returns what a work directory holds, and drops from it what is damaged or will be written again."""
    trials, damaged = recorder.keep("trials.jsonl", lambda row: True, _id)
    if damaged:
        tell(f"{workdir / 'trials.jsonl'}: {damaged} damaged lines dropped; their trials run again")
    records.check_trials(workdir, trials)
    _drop_damaged_weights(workdir, tell)
    kept = dict(checkpoint.kept(workdir))
    missing = {row["id"] for row in trials} & set(named) - kept.keys()  # those whose weights are asked for run again
    trials = [row for row in trials if row["id"] not in missing]
    again = _outdated(trials, ids, families)
    _tell_again(again, tell)
    trials = [row for row in trials if row["id"] not in again]
    kept = {identity: value for identity, value in kept.items() if identity not in again}
    trials = _without_lost_parents(trials, ids, families, kept, tell)
    running = snapshot.newest(workdir, tell)
    open_ids = ids.keys() - {row["id"] for row in trials if row["status"] in ended}
    if running is not None and open_ids.isdisjoint(running.ids):
        running = None
    _trim_curves(workdir, trials, open_ids, running, recorder, tell)
    return Before(trials, _earlier_groups(workdir / "plan.json", tell), kept, running)


def _outdated(trials: list[Row], ids: Collection[str], families: Parents) -> set[str]:
    """Returns trials that started from others than they would start from now.

    Those whose parent runs again are left out: it may end as before.
    """
    asked = {row["id"]: row for row in trials if row["id"] in ids and row["status"] in records.DONE}
    runs_again = set(ids) - asked.keys()
    return {each for each in families.outdated(asked) if runs_again.isdisjoint(line_of(asked[each])[:1])}


def _tell_again(trials: Collection[str], tell: Tell) -> None:
    if trials:
        who = f"trial {next(iter(trials))} is" if len(trials) == 1 else f"{len(trials)} trials are"
        tell(f"{who} trained again: the best of those to start from is another one now")


def _without_lost_parents(
    trials: list[Row], ids: Collection[str], families: Parents, kept: Collection[str], tell: Tell
) -> list[Row]:
    """Returns rows without those of trials that others will start from and whose weights are gone: they run again."""
    asked = [row for row in trials if row["id"] in ids and row["status"] in records.DONE]
    values, done, lost = values_of(asked), {row["id"] for row in asked}, set[str]()
    while more := families.needed(values, done - lost) - set(kept) - lost:
        lost |= more  # these start from others again
    for identity in sorted(lost):
        tell(f"trial {identity} is trained again: others start from it, and its weights are not kept any more")
    return [row for row in trials if row["id"] not in lost]


def _trim_curves(
    workdir: Path, trials: list[Row], open_ids: Collection[str], running: Snapshot | None, recorder: records.Recorder,
    tell: Tell,
) -> None:  # fmt: skip
    """Drops from curves.jsonl what trials that go on or start again will write again."""
    if not open_ids and conclusion.is_unchanged(workdir, "curves.jsonl"):
        return
    reached = dict.fromkeys(running.ids, running.epoch) if running else {}

    def wanted(row: Row) -> bool:
        return row["id"] not in open_ids or row["epoch"] <= reached.get(row["id"], 0)

    left, damaged = recorder.trim("curves.jsonl", wanted, _id_and_epoch)
    if damaged:
        tell(f"{workdir / 'curves.jsonl'}: {damaged} damaged lines dropped")
    epochs = Counter(identity for identity, _ in left)
    short = [row for row in trials if row["status"] == records.COMPLETE and epochs[row["id"]] < _epochs(row)]
    if short:
        tell(f"{workdir / 'curves.jsonl'} lacks epochs of {len(short)} trials; their results are in trials.jsonl")


def _epochs(row: Row) -> int:
    return int(row["hparams"]["epochs"])


def _drop_damaged_weights(workdir: Path, tell: Tell) -> None:
    for name, problem in checkpoint.damaged(workdir).items():
        path = workdir / "checkpoints" / name
        if name == "base":
            tell(f"{path} was damaged ({problem}) and is written again")
        else:
            path = path.parent
            tell(f"{path} is removed: {problem}; the trial's results stay, --config.checkpoint.trials={path.name} "
                 "trains it again")  # fmt: skip
        shutil.rmtree(path)  # what cannot be removed could not be written again either


def _earlier_groups(file: Path, tell: Tell) -> list[dict[str, Any]]:
    """Returns the groups of plan.json, none if it is damaged: they are then planned anew."""
    wanted = {"signature", "mode", "on_device", "chunk", "reason", "trunk", "trunk_place", "members"}
    try:
        groups = records.read_document(file).get("groups", [])
        if isinstance(groups, list) and all(isinstance(each, dict) and each.keys() >= wanted for each in groups):
            return groups
    except UserError:
        pass
    file.unlink()  # else a study with nothing left to plan could not be read
    tell(f"{file} was damaged and is dropped: what is left is planned anew")
    return []
