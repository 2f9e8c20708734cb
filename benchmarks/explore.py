"""A search against Optuna that trains one trial after the other, in equal seconds: a head on MiniLM for R8.

    python benchmarks/explore.py --repeats=10 [--config.data.train_examples=1000]

A repeat is a whole search of ours, from loading to the answer, with TPE in waves; then Optuna's TPE has as many seconds
for trials that sequential.py trains: a program for all of them, compiled within the time, the frozen encoder in every
step. Data and model are given to it. A trial that has begun may end. Both picks, the best by validation accuracy, are
then trained with five seeds that neither has seen: regret is how far their means lie behind the best pick of all
repeats. What is cached, batched and shared is in this figure together; benchmarks/sweep.py takes it apart.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import minilm
import numpy as np
import optuna
import sequential
from absl import flags

from finetune.config import Config
from finetune.member.epoch import epoch_order
from finetune.search.search import TPE, Search, Stopped, Told
from finetune.search.space import parse
from finetune.study import plan, problem, run
from finetune.study.exploring import explore
from finetune.study.problem import Subject
from finetune.trials.assignment import Assignment
from finetune.trials.grid import make_trials

_CONFIG = minilm.define_config_flag()
_REPEATS = flags.DEFINE_integer("repeats", 10, "searches of each kind")
_TRIALS = flags.DEFINE_integer("trials", 128, "settings of a search of ours")
_WAVES = flags.DEFINE_integer("waves", 4, "in so many waves")

_SPACE = ["learning_rate=log:1e-5:1e-1", "weight_decay=log:1e-4:1"]
_FRESH = range(1, 6)  # seeds that no search has seen: those have 0

Setting = dict[str, float]


class Asked(Search):
    """A search that counts the seconds in which it is asked."""

    seconds = 0.0

    def wave(self, number: int, told: Told, stopped: Stopped = ()) -> list[Assignment]:
        started = time.monotonic()
        found = super().wave(number, told, stopped)
        Asked.seconds += time.monotonic() - started
        return found


class Solo:
    """One trial at a time."""

    def __init__(self, config: Config, subject: Subject):
        (trial,) = make_trials(config, {})
        examples = len(subject.dataset.train["label"])
        self._recipe = plan.make_recipe(config, subject.task, subject.shapes, [trial], examples)
        self._hparams, self._epochs = dict(trial.hparams), config.hparams.epochs
        frozen = {path: leaf for path, leaf in subject.base.items() if path not in self._recipe.paths}
        splits = [dict(split) for split in subject.dataset[:2]]
        self._frozen, (self._train_split, self._validation) = jax.device_put((frozen, splits))
        self._base = {path: subject.base[path] for path in self._recipe.paths}
        self._train, self._correct = sequential.scanned(self._recipe), jax.jit(self._right)

    def _right(self, params: Any, frozen: Any, batch: Any) -> jax.Array:
        outputs = self._recipe.evaluating_forward(params, frozen, batch, 0.0, None)
        return jnp.sum(outputs.argmax(-1) == batch["label"])

    def reached(self, setting: Setting) -> float:
        """Returns the validation accuracy of a setting at its best epoch."""
        state = sequential.start(self._recipe, self._hparams | setting, self._base)
        best, examples, size = 0.0, self._recipe.examples, self._recipe.micro_batch
        count = len(self._validation["label"])
        for epoch in range(self._epochs):
            rows = epoch_order(0, epoch, examples, size).examples[: examples // size]
            state = self._train(state, self._hparams | setting, self._frozen, self._train_split, rows)
            right = 0
            for start in range(0, count, size):
                batch = {name: array[start : start + size] for name, array in self._validation.items()}
                right += int(self._correct(state.params, self._frozen, batch))
            best = max(best, right / count)
        return best


def searched(config: Config, seed: int) -> tuple[Setting, int, float]:
    """Returns the pick of a search of ours, how many trials it had, and the seconds of it all."""
    started = time.monotonic()
    search = Asked(parse(_SPACE, config), TPE, _TRIALS.value, _WAVES.value, seed)
    with tempfile.TemporaryDirectory() as directory:
        rows = [row for row in explore(config, Path(directory) / "study", search).trials if row["best"]]
    best = max(rows, key=lambda row: row["metrics"]["val_accuracy"])
    pick = {name: best["hparams"][name] for name in ("learning_rate", "weight_decay")}
    return pick, len(rows), time.monotonic() - started


def alone(config: Config, subject: Subject, seed: int, seconds: float) -> tuple[Setting, int, float]:
    """Returns the same of Optuna and trials alone in about so many seconds."""
    started, solo = time.monotonic(), Solo(config, subject)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    while time.monotonic() - started < seconds:
        trial = study.ask()
        setting = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        }
        study.tell(trial, solo.reached(setting))
    return study.best_params, len(study.trials), time.monotonic() - started


def means(config: Config, picks: list[Setting]) -> np.ndarray:
    """Returns the mean validation accuracy of each pick over fresh seeds."""
    asked = [pick | {"seed": seed} for pick in picks for seed in _FRESH]
    with tempfile.TemporaryDirectory() as directory:
        rows = run.run(config, Path(directory) / "study", {}, asked).trials
    values = [row["metrics"].get("val_accuracy") or 0.0 for row in rows]
    return np.array(values).reshape(len(picks), -1).mean(1)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = _CONFIG.value
    subject, found = problem.load(config), []
    for seed in range(_REPEATS.value):
        pick, trials, seconds = searched(config, seed)
        other, others, taken = alone(config, subject, seed, seconds)
        found.append((pick, other))
        asking, Asked.seconds = Asked.seconds / seconds, 0.0
        print(f"repeat {seed}: {trials} trials in {seconds:.0f} s, of which {asking:.1%} asking; alone {others} in "
              f"{taken:.0f} s", flush=True)  # fmt: skip
    reached = means(config, [each for pair in found for each in pair]).reshape(-1, 2)
    regret = reached.max() - reached
    wins = int((regret[:, 0] < regret[:, 1]).sum())
    print(json.dumps({"repeats": len(found), "regret": regret.mean(0).tolist(), "lower": wins,
                      "equal": int((regret[:, 0] == regret[:, 1]).sum()), "regrets": regret.tolist()}))  # fmt: skip


if __name__ == "__main__":
    minilm.run(main)
