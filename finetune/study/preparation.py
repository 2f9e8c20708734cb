"""Groups made ready to train: what becomes of what is frozen, how they run on this machine, and in which chunks."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.config import Config
from finetune.hosts import signals
from finetune.hosts.console import console, counted, tell
from finetune.hosts.processes import is_first
from finetune.member.params import partition
from finetune.member.step import Recipe, Shared
from finetune.population import measure
from finetune.population.group import Execution, Group, Splits, with_features
from finetune.search.halving import Halving
from finetune.storage import checkpoint
from finetune.storage.snapshot import Snapshot
from finetune.study import plan, planned, seconds, summary
from finetune.study.chunk import Chunk, chunks_left
from finetune.study.display import describe_group
from finetune.study.ledger import Ledger
from finetune.study.problem import Subject
from finetune.trials.grid import Trial
from finetune.trunk.choice import HostSplit, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import feature_store


class Preparation:
    """What the groups of a study have in common before they train, and plan.json.

    Features are kept for the waves that follow, and so are compiled groups, if there may be any. trunk_passes: how
    often what is frozen has run over the data.
    """

    def __init__(self, config: Config, workdir: Path, subject: Subject, spent: seconds.Spent, waves: int):
        self.planned, self.trunk_passes = planned.Planned(()), 0
        self._config, self._workdir, self._subject, self._waves = config, workdir, subject, waves
        self._spent, self._store = spent, feature_store(config.trunk)
        self._features, self._trunk_seconds, self._groups = [HostSplit() for _ in subject.dataset[:3]], 0.0, 0
        self._measured, self._before = dict[Any, Group](), list[planned.Entry]()

    def begin(self, ids: Mapping[str, Trial], ledger: Ledger, halving: Halving | None) -> None:
        """Begins a wave. ids: all trials that the study is asked for; halving: what stops those that are left."""
        self._before += self.planned.groups
        self.planned, self._ids, self._ledger = planned.Planned(ledger.groups), ids, ledger
        self._halving = halving

    @property
    def prepared(self) -> list[planned.Entry]:
        """The groups of all waves."""
        return [*self._before, *self.planned.groups]

    def group(self, number: int, trials: Mapping[str, Trial], recipe: Recipe) -> Group:
        """Returns group `number`, with what is left of its `trials` and what becomes of its frozen part."""
        config, subject, splits = self._config, self._subject, self._subject.dataset[:3]
        signature = plan.signature(subject.fingerprint, recipe, list(trials.values()))
        room, trunk_config = measure.feature_room(self._store), config.trunk
        if earlier := self.planned.earlier(signature):  # the same computation again
            trunk_config = dataclasses.replace(trunk_config, mode=earlier["trunk"])
            room = room.only(earlier["trunk_place"])
        shapes, eval_batch = subject.shapes | recipe.adapters.shapes, config.evaluation.batch_size
        trunk = choose_trunk(trunk_config, recipe, shapes, splits, list(trials.values()), room, eval_batch)
        trained, frozen = partition(subject.base, recipe.own)
        pretrained = {path: leaf for path, leaf in trained.items() if path in subject.pretrained}
        return Group(
            trials={identity: trial for identity, trial in trials.items() if self._ledger.left(identity)},
            recipe=recipe,
            trunk=trunk,
            shared=Shared(frozen, pretrained, class_weights=subject.class_weights),
            splits=Splits(*splits),
            eval_batch=eval_batch,
            trained_bytes=checkpoint.content({**trained, **recipe.adapters.shapes}),
            number=number,
            signature=signature,
        )

    def compute_features(self, groups: Sequence[Group], plan_only: bool) -> None:
        """Runs the trunks of all groups over the data, or finds out how long that would take."""
        started, subject = time.monotonic(), self._subject
        trunks, eval_batch = [group.trunk for group in groups], self._config.evaluation.batch_size
        trunk_pass = Pass(trunks, subject.base, subject.dataset[:3], eval_batch, self._store, self._features)
        self.trunk_passes += int(trunk_pass.batches > 0)
        if trunk_pass.is_found:
            tell("frozen part over the data: found, as an earlier study left it")
        estimated, self._groups = trunk_pass.estimated_seconds(), len(groups)
        self._trunk_seconds += estimated
        if plan_only:
            self._features = trunk_pass.imagined()
        else:
            with counted("frozen part over the data", trunk_pass.batches, estimated) as advance:
                self._features = trunk_pass.run(signals.checked(advance))
        self._spent.add({"trunk": time.monotonic() - started})

    def prepare(self, group: Group, most: int) -> list[Chunk]:
        """Returns the chunks of a group that is compiled in the way that is best on this machine; writes the plan.

        most: members of a chunk, 0 = as many as fit.
        """
        signals.check()
        started = time.monotonic()
        earlier = self.planned.take(group.signature)
        group, is_new = self._chosen(group, most, planned.execution(earlier))
        finished = {identity: self._ids[identity] for identity in self._ledger.done}
        members, running = earlier["members"] if earlier else (), self._running(group.signature)
        chunks = chunks_left(group, finished, members, running, self._halving is not None)
        parts = [list(chunk.trials.values()) for chunk in chunks]
        spent = time.monotonic() - started
        self._spent.add({"compile": spent})
        self._spent.compiles.update(dict.fromkeys(group.programs.compiled, int(is_new)))
        estimate = plan.estimate(group, parts, self._ledger.keeps(group.trials), spent, self._halving)
        estimate = estimate if is_new else estimate._replace(compile_seconds=spent)
        described = plan.describe(group, parts, estimate, self._halving)
        self.planned.groups.append({**described, "members": [list(chunk.trials) for chunk in chunks]})
        console.print(describe_group(self.planned.groups[-1]))
        if is_first():
            self._write_plan()
        return chunks

    def _chosen(self, group: Group, most: int, earlier: Execution | None) -> tuple[Group, bool]:
        """Returns a group that is compiled, as it ran `earlier` if it did, and whether that was to be done."""
        seeds = group.recipe.seeds if group.recipe.dropout else 0  # without dropout nothing is drawn for them
        key = planned.key(group.signature), seeds, group.trunk.mode, group.trunk.place
        known = self._measured.get(key)
        if known is not None and known.execution == earlier:
            return known._replace(trials=group.trials, number=group.number), False
        config = self._config
        mode = "loop" if config.trunk.mode == "none" else config.execution.mode  # vmap shares what is frozen
        execution = dataclasses.replace(config.execution, chunk=most, mode=mode)
        group = measure.choose(execution, with_features(group, self._features), earlier)
        if self._waves > 1:  # else what a group holds on the devices is let go with it
            self._measured[key] = group
        return group, True

    def _running(self, signature: Mapping[str, Any]) -> Snapshot | None:
        """Returns what was being trained when the study was left, if it is of the group with this signature."""
        running = self._ledger.running
        if running is None or not planned.same_program(running.signature, signature):
            return None
        self._ledger.running = None
        return running if self._ledger.goes_on(running) else None

    def _write_plan(self, unseen_bytes: int = 0) -> dict[str, Any]:
        """Writes plan.json and returns it; `unseen_bytes` of memory are yet to be taken."""
        document = self.planned.document(self._workdir, len(self._ids), self._subject.base, self.planned_seconds())
        document["process_bytes"] += unseen_bytes
        self._ledger.recorder.write("plan.json", document)
        return document

    def plan(self, groups: Sequence[Group]) -> None:
        """Measures groups, and says what the whole study will take; features that are imagined take no room yet."""
        for group in groups:
            self.prepare(group, self._config.execution.chunk)
        unseen_bytes = sum(array.nbytes for split in self._features for array in split.values())
        if is_first():
            summary.show_plan(self._workdir / "plan.json", self._write_plan(unseen_bytes))

    def planned_seconds(self) -> dict[str, float]:
        """Returns what the study takes by part, as far as its groups are planned."""
        load = self._spent.by_part["load"]
        return seconds.planned(load, self._trunk_seconds, self.prepared, self._ids.values())

    def in_words(self) -> str:
        """Returns the same as a line."""
        return seconds.in_words(self.planned_seconds(), self._groups - len(self.planned.groups))
