"""A population against its trials one after another: the same updates, in one process, in turns.

    python benchmarks/sweep.py --regime=head --members=32 --trunk=shared
    python benchmarks/sweep.py --regime=last:1 --members=8 --trunk=shared
    python benchmarks/sweep.py --regime=last:1 --members=8 --epochs=10
    python benchmarks/sweep.py --regime=all --members=8

First every member's parameters after an epoch over the timed texts are compared with those of its solo run by
sequential.py, whose program shares nothing with ours but the model. Then an epoch of ours and of the solo run, and the
pass of the frozen part over the data where features are cached, are timed in turns, and medians compared:

    sequential  the program of sequential.py, stepped or scanned, whichever is faster: K·E epochs of it against the
                pass and E epochs of ours. Compilation is left out: both compile once.
    naive       the same with a fresh compilation for each trial, on --examples texts, against ours with the time that
                it takes to choose and compile.
    bound       K·(f + 3(1−f)) / (f + 3K(1−f)), f the frozen share of the FLOPs of a forward pass and a backward pass
                counted as two of them; with E epochs on cached features K·E in place of K. XLA's cost analysis counts
                the FLOPs of the forward pass, and of the part of it that trunk/cut.py puts into the trunk.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import minilm
import numpy as np
import ours
import sequential
import timing
from absl import flags

from finetune.config import Config, TrunkConfig
from finetune.errors import UserError
from finetune.member.epoch import make_order
from finetune.member.params import partition
from finetune.member.step import Recipe
from finetune.population.parallel import padded_size
from finetune.study import problem as subjects
from finetune.study.problem import Subject
from finetune.trials.grid import Trial, make_trials
from finetune.trunk.choice import HostSplit, choose_trunk

_CONFIG = minilm.define_config_flag()
_REGIME = flags.DEFINE_string("regime", "head", "what trains, as --config.trainable: head, last:1, last:2, all, ...")
_MEMBERS = flags.DEFINE_integer("members", 8, "K, trials trained together", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "E, over which the pass of a cached frozen part is spread", lower_bound=1)
_TRUNK = flags.DEFINE_enum("trunk", "auto", ["auto", "none", "shared", "cached"], "what becomes of the frozen part")
_EXAMPLES = flags.DEFINE_integer("examples", 1000, "training texts of the study that is compared with the naive way")
_BATCHES = flags.DEFINE_integer("batches", 4, "batches that are timed, and after which members are compared")
_REPEATS = flags.DEFINE_integer("repeats", 3, "how often each is timed", lower_bound=1)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "largest difference to a solo run, over the norm of what trains")
_UPDATE_TOLERANCE = flags.DEFINE_float("update_tolerance", 1e-2, "the same over the norm of how far it has moved")
_JSON = flags.DEFINE_bool("json", False, "print one line of JSON")

# Of the learning rates of the members: sensible ones for AdamW, so that nothing diverges.
_RATES = {"head": (1e-2, 1e-4), "all": (1e-4, 1e-6)}
_OTHER_RATES = 1e-3, 1e-5
_WAYS = {"stepped": sequential.stepped, "scanned": sequential.scanned}


def _load() -> tuple[Config, Subject, list[HostSplit], list[Trial]]:
    """Returns (config, subject, its splits cut to what is timed, the trials)."""
    config = _CONFIG.value
    if config.hparams.dropout > 0 or (config.optimizer.name, config.optimizer.schedule) != ("adamw", "cosine"):
        raise UserError("the solo runs have no dropout, and AdamW with a cosine, allowed: nothing else")
    config.trainable, config.trunk.mode, config.hparams.epochs = _REGIME.value, _TRUNK.value, _EPOCHS.value
    batch = config.evaluation.batch_size = config.hparams.batch_size
    config.data.train_examples = _BATCHES.value * batch
    rates = np.geomspace(*_RATES.get(_REGIME.value, _OTHER_RATES), _MEMBERS.value)
    sweep = [{"learning_rate": float(rate), "seed": seed} for seed, rate in enumerate(rates)]
    subject = subjects.load(config)
    splits = ours.first(subject.dataset[:3], _BATCHES.value * batch, batch, batch)
    return config, subject, splits, make_trials(config, {}, sweep)


class Population:
    """All trials as a study trains them, over the timed batches."""

    def __init__(self, prepared: ours.Prepared, trials: Sequence[Trial]):
        self._measured, self._trials, self._group = prepared.measured, trials, prepared.measured
        order = make_order(np.arange(prepared.recipe.examples), prepared.recipe.micro_batch)
        self._order = self._group.layout.put_order(order)
        self._bounds = np.int32(0), np.int32(0), np.int32(len(order.examples))
        self.restart()

    def restart(self) -> None:
        """Puts all members back to their beginning."""
        self._members = None  # whose memory is needed
        self._members = ours.members(self._measured, self._trials)

    def epoch(self) -> None:
        """Trains all members over the timed batches."""
        fixed = self._group.shared, self._group.splits.train, self._order
        self._members = jax.block_until_ready(self._group.programs.train(self._members, *fixed, *self._bounds))

    def params(self, place: int) -> dict[str, np.ndarray]:
        """Returns the trained leaves of a member."""
        copies = [place] * padded_size(1, self._group.layout)
        one = self._group.programs.fetch(self._group.programs.take(self._members, copies))
        return {path: leaf[0] for path, leaf in one.params.items()}


class Solo:
    """One trial at a time by sequential.py, over the same batches."""

    def __init__(self, recipe: Recipe, subject: Subject, split: HostSplit, way: str):
        self._recipe, self._train = recipe, _WAYS[way](recipe)
        frozen = {path: leaf for path, leaf in subject.base.items() if path not in recipe.paths}
        self._frozen, self._split = jax.device_put((frozen, dict(split)))
        self._start = ours.start_of(recipe, subject)
        self._rows = np.arange(len(split["label"]), dtype=np.int32).reshape(-1, recipe.micro_batch)

    def restart(self, trial: Trial) -> None:
        """Puts a trial at its beginning in place of the one before."""
        self._hparams = dict(trial.hparams)
        self._state = sequential.start(self._recipe, self._hparams, self._start(trial))

    def epoch(self) -> None:
        """Trains the trial over the timed batches."""
        arguments = self._hparams, self._frozen, self._split, self._rows
        self._state = jax.block_until_ready(self._train(self._state, *arguments))

    def params(self) -> dict[str, np.ndarray]:
        """Returns its trained leaves."""
        return jax.device_get(self._state.params)


def _largest_differences(population: Population, solo: Solo, trials: Sequence[Trial]) -> tuple[float, float]:
    """Returns the largest distance of a member from its solo run over the norm of what trains, and of its change."""
    population.restart()
    population.epoch()
    of_params, of_change = [], []
    for place, trial in enumerate(trials):
        solo.restart(trial)
        before = solo.params()
        solo.epoch()
        expected, found = solo.params(), population.params(place)
        distance = _norm(found[path] - leaf for path, leaf in expected.items())
        of_params.append(distance / _norm(expected.values()))
        of_change.append(distance / _norm(leaf - before[path] for path, leaf in expected.items()))
    return max(of_params), max(of_change)


def _norm(leaves: Iterable[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in leaves))


def _frozen_share(recipe: Recipe, subject: Subject, splits: Sequence[HostSplit], trials: Sequence[Trial]) -> float:
    """Returns f: the FLOPs of the trunk over those of the forward pass, both of one example."""
    trunk = choose_trunk(TrunkConfig(mode="cached"), recipe, subject.shapes, splits, trials, ours.ROOM)
    trained, frozen = partition(subject.shapes, frozenset(recipe.paths))
    batch = {name: jax.ShapeDtypeStruct((2, *array.shape[1:]), array.dtype) for name, array in splits[0].items()}
    forward = jax.jit(lambda *arguments: recipe.forward(*arguments, 0.0, None)).lower(trained, frozen, batch)
    return trunk.flops / _examples(splits) / (forward.cost_analysis()["flops"] / 2)


def _examples(splits: Sequence[HostSplit]) -> int:
    return sum(len(split["label"]) for split in splits)


def _run() -> dict[str, Any]:
    """Returns what was measured; seconds are of one batch."""
    config, subject, splits, trials = _load()
    prepared = ours.prepare(config, subject, splits, trials, real=True)
    recipe, population = prepared.recipe, Population(prepared, trials)
    solo = {way: Solo(recipe, subject, splits[0], way) for way in _WAYS}
    differences = _largest_differences(population, solo["stepped"], trials)
    if not (differences[0] <= _TOLERANCE.value and differences[1] <= _UPDATE_TOLERANCE.value):
        allowed = f"allowed: {_TOLERANCE.value:g} of its norm, {_UPDATE_TOLERANCE.value:g} of its change"
        raise SystemExit(f"a member differs from its solo run by {differences[0]:.1e}, {differences[1]:.1e}, {allowed}")
    solo["scanned"].restart(trials[0])
    calls = {"population": population.epoch, **{way: each.epoch for way, each in solo.items()}}
    if prepared.trunk.mode == "cached":
        calls["pass"] = lambda: prepared.trunk_pass.run(lambda: None)
    whole = timing.in_turns(calls, _REPEATS.value)
    seconds = {name: value / _BATCHES.value for name, value in whole.items() if name != "pass"}
    seconds["pass"] = whole.get("pass", 0.0) / _examples(splits) * recipe.micro_batch
    way = min(_WAYS, key=lambda name: seconds[name])
    fresh = Solo(recipe, subject, splits[0], way)
    fresh.restart(trials[-1])
    return {
        "regime": _REGIME.value,
        "members": _MEMBERS.value,
        "epochs": _EPOCHS.value,
        "batch": recipe.micro_batch,
        "trunk": prepared.trunk.mode,
        "mode": prepared.measured.execution.mode,
        "on_device": prepared.measured.execution.on_device,
        "difference": differences[0],
        "difference_of_change": differences[1],
        "seconds": seconds,
        "solo": way,
        "compile_seconds": {"ours": prepared.compile_seconds, "solo": timing.once(fresh.epoch) - whole[way]},
        "frozen_share": _frozen_share(recipe, subject, splits, trials),
        **timing.machine(),
    }


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    """Returns what follows from what was measured: speed-ups and bound."""
    members, epochs, f = found["members"], found["epochs"], found["frozen_share"]
    seconds, compiling = found["seconds"], found["compile_seconds"]
    solo, together = epochs * seconds[found["solo"]], seconds["pass"] + epochs * seconds["population"]
    rows = math.ceil(_EXAMPLES.value / found["batch"])
    times = members * epochs if found["trunk"] == "cached" else members
    bound = times * (f + 3 * (1 - f)) / (f + 3 * times * (1 - f))
    speedup = members * solo / together
    naive = members * (compiling["solo"] + rows * solo) / (compiling["ours"] + rows * together)
    return {"speedup": speedup, "bound": bound, "share_of_bound": speedup / bound, "naive_speedup": naive}


def _text(result: dict[str, Any]) -> str:
    way = f"by {result['mode']}, {'looped on the device' if result['on_device'] else 'stepped from the host'}"
    milliseconds = {name: f"{1e3 * value:.2f} ms" for name, value in result["seconds"].items()}
    norm, change = result["difference"], result["difference_of_change"]
    bound = f"the bound {result['bound']:.2f} (frozen share of the forward pass {result['frozen_share']:.4f})"
    return f"""{result["regime"]}, {result["members"]} members, {result["epochs"]} epochs, batches of {result["batch"]}
  every member equals its solo run: largest difference {norm:.1e} of its norm, {change:.1e} of its change
  ours: trunk {result["trunk"]}, {way}
  a batch of all members {milliseconds["population"]}, the pass over it {milliseconds["pass"]}
  a batch of one trial {milliseconds["stepped"]} stepped, {milliseconds["scanned"]} scanned
  {result["speedup"]:.2f} times the speed of the best sequential way, {result["share_of_bound"]:.0%} of {bound}
  {result["naive_speedup"]:.2f} times the speed of a fresh compilation for each trial, {_EXAMPLES.value} texts
  {result["device"]}, {result["cores"]} cores, jax {result["jax"]}, {result["date"]}"""


def main() -> None:
    found = _run()
    result = found | _compared(found)
    print(json.dumps(result) if _JSON.value else _text(result))


if __name__ == "__main__":
    minilm.run(main)
