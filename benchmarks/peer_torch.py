"""105 heads on MiniLM against PyTorch on the same machine, in one run: 7 learning rates x 3 weight decays x 5 seeds.

    python benchmarks/peer_torch.py --workdir=runs/peer_torch

The same texts, weights and grid, the same heads at the start, the same order of texts, three times: a whole study of
ours; torch_heads.py trial after trial, with the frozen encoder in every step, of which --timed_trials are timed and
multiplied; and torch_heads.py with features cached by hand in one pass, which is counted, all trials trained.
Everything counts from reading the texts to the last accuracy. Needs python -m pip install torch transformers.

The bound against features cached by hand: both sides have to run the same encoder over the same tokens. If both did so
without padding and at the rate at which this machine multiplies matrices, and ours did nothing else while the peer also
trained its heads in the time that was measured, the peer would take that many times as long.
"""

import importlib.util
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import minilm
import numpy as np
import ours
import timing
from absl import flags

from finetune import data
from finetune.config import Config, TrunkConfig
from finetune.member.epoch import epoch_order
from finetune.models.weights import pretrained
from finetune.study import problem as subjects
from finetune.study import run
from finetune.study.plan import make_recipe
from finetune.trials.grid import Trial, make_trials
from finetune.trunk.choice import choose_trunk

_CONFIG = minilm.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", "runs/peer_torch", "the directory of our study, which is removed first")
_TIMED = flags.DEFINE_integer("timed_trials", 2, "trials that are timed where the encoder runs in every step")
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "largest difference of a trial's validation accuracies")

_FEATURES_TOLERANCE = 1e-4
_AXES: dict[str, Sequence[float]] = {
    "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "weight_decay": [0.0, 1e-2, 1e-1],
    "seed": [0, 1, 2, 3, 4],
}


class Timed(NamedTuple):
    """What a way of training all trials took, in seconds, and the validation accuracies by (rate, decay, seed)."""

    seconds: dict[str, float]
    accuracy: dict[tuple[float, ...], float]

    @property
    def total(self) -> float:
        """All seconds."""
        return sum(self.seconds.values())


def _key(hparams: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(hparams[name] for name in _AXES)


def _ours(config: Config) -> Timed:
    workdir = Path(_WORKDIR.value)
    shutil.rmtree(workdir, ignore_errors=True)
    started = time.monotonic()
    results = run.run(config, workdir, _AXES)
    whole = time.monotonic() - started
    seconds = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["seconds"]
    seconds["rest"] = whole - sum(seconds.values())
    return Timed(seconds, {_key(row["hparams"]): row["best"]["value"] for row in results.trials})


class Peer:
    """The same trials by torch_heads.py."""

    def __init__(self, config: Config):
        import torch_heads

        self._peer, started = torch_heads, time.monotonic()
        dataset = data.load(config.data, pretrained.tokenizer_file(config.model))
        self._splits = {name: torch_heads.texts(getattr(dataset, name)) for name in ("train", "validation", "test")}
        self._encoder = torch_heads.load(pretrained.directory(config.model))
        self._load_seconds = time.monotonic() - started
        self._config, self._subject = config, subjects.load(config)
        examples = len(dataset.train["label"])
        self._recipe = make_recipe(config, self._subject.task, self._subject.shapes, make_trials(config, {}), examples)
        self._head = ours.start_of(self._recipe, self._subject)

    def _start(self, trial: Trial) -> Any:
        """Returns the head with which our trial starts, and the orders in which it reads the texts."""
        head, epochs = self._head(trial), range(trial.hparams["epochs"])
        orders = [epoch_order(trial.hparams["data_seed"], epoch, self._recipe.examples, 1).examples for epoch in epochs]
        places = [order[:, 0].astype(np.int64) for order in orders]
        return self._peer.Start(np.array(head["head/kernel"]).T.copy(), np.array(head["head/bias"]), places)

    def _train(self, trials: Sequence[Trial], encoded: Any) -> tuple[dict[tuple[float, ...], float], float]:
        """Returns the validation accuracies of trials, and the seconds that they took."""
        starts = [self._start(trial) for trial in trials]
        started = time.monotonic()
        outcomes = [
            self._peer.train(trial.hparams, start, self._splits, encoded)
            for trial, start in zip(trials, starts, strict=True)
        ]
        seconds = time.monotonic() - started
        accuracies = [outcome.validation_accuracy for outcome in outcomes]
        return {_key(trial.hparams): each for trial, each in zip(trials, accuracies, strict=True)}, seconds

    def _places(self) -> np.ndarray:
        return np.arange(min(self._config.hparams.batch_size, self._recipe.examples))

    def encode(self) -> np.ndarray:
        """Returns the features of the first batch."""
        return self._peer.encode(self._encoder, self._splits["train"], self._places()).numpy()

    def trial_after_trial(self, trials: Sequence[Trial]) -> Timed:
        """Returns all trials with the encoder in every step: a few are timed, and their mean multiplied."""
        self._peer.tune_threads(self.encode)
        some = trials[:: -(-len(trials) // _TIMED.value)][: _TIMED.value]
        accuracies, seconds = self._train(some, self._peer.as_needed(self._encoder, self._splits))
        return Timed({"load": self._load_seconds, "train": seconds / len(some) * len(trials)}, accuracies)

    def cached_by_hand(self, trials: Sequence[Trial]) -> Timed:
        """Returns all trials on features that are computed once."""
        self._peer.tune_threads(self.encode)
        started = time.monotonic()
        encoded = self._peer.in_advance(self._encoder, self._splits)
        pass_seconds = time.monotonic() - started
        self._peer.tune_threads(lambda: self._train(trials[:1], encoded))
        accuracies, seconds = self._train(trials, encoded)
        return Timed({"load": self._load_seconds, "pass": pass_seconds, "train": seconds}, accuracies)

    def pass_flops(self) -> float:
        """Returns what the encoder multiplies and adds for all texts without their padding: dense layers, attention."""
        sizes = self._subject.architecture
        width, depth = sizes["width"], sizes["depth"]
        length = np.concatenate([split.length.numpy() for split in self._splits.values()]).astype(float)
        dense = 4 * width**2 + 2 * width * sizes["mlp_width"]  # queries, keys, values, output; up and down
        return float(depth * (2 * dense * length.sum() + 4 * width * (length**2).sum()))

    def compare_features(self) -> None:
        """Raises SystemExit unless the encoder's features are those on which our heads train."""
        subject, splits, trials = self._subject, self._subject.dataset[:3], make_trials(self._config, {})
        trunk = choose_trunk(TrunkConfig(mode="cached"), self._recipe, subject.shapes, splits, trials, ours.ROOM)
        batch = {name: array[self._places()] for name, array in splits[0].items()}
        (expected,) = jax.device_get(jax.jit(trunk.evaluate.trunk)(subject.base, batch)).values()
        difference = float(np.abs(expected - self.encode()).max())
        if not difference <= _FEATURES_TOLERANCE:
            raise SystemExit(f"features differ by {difference:.1e}, allowed: {_FEATURES_TOLERANCE:g}")


def _compare_accuracies(mine: Timed, theirs: Timed) -> float:
    """Returns the largest difference of a trial's accuracies; raises SystemExit if that is not rounding."""
    largest = max(abs(accuracy - mine.accuracy[key]) for key, accuracy in theirs.accuracy.items())
    if not largest <= _TOLERANCE.value:
        raise SystemExit(f"a trial's accuracies differ by {largest:.3f}, allowed: {_TOLERANCE.value:g}")
    return largest


def _bound(peer: Peer, cached: Timed) -> str:
    rate = timing.product_rate()
    least = peer.pass_flops() / rate
    bound = (least + cached.seconds["train"]) / least
    return f"the encoder takes {least:.1f} s at {rate / 1e9:.0f} GFLOP/s: bound of the last ratio {bound:.2f}"


def main() -> None:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: needs {' and '.join(missing)}, which python -m pip install {' '.join(missing)} installs")
        return
    config = _CONFIG.value
    trials = make_trials(config, _AXES)
    mine = _ours(config)
    peer = Peer(config)
    peer.compare_features()
    cached, usual = peer.cached_by_hand(trials), peer.trial_after_trial(trials)
    difference = _compare_accuracies(mine, cached)
    _compare_accuracies(cached, usual)
    count = f"{min(_TIMED.value, len(trials))} trials timed, and multiplied"
    print(f"{len(trials)} trials, {config.hparams.epochs} epochs, {config.data.train_examples} texts")
    print(f"validation accuracies of the same trial differ by {difference:.4f} at most")
    print(_line("ours", mine, mine))
    print(_line(f"PyTorch, trial after trial ({count})", usual, mine))
    print(_line("PyTorch, features cached by hand", cached, mine))
    print(_bound(peer, cached))
    print(", ".join(f"{name} {value}" for name, value in timing.machine(("jax", "torch", "transformers")).items()))


def _line(what: str, timed: Timed, mine: Timed) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in timed.seconds.items())
    return f"{what}: {timed.total:.1f} s ({parts}), {timed.total / mine.total:.2f} times ours"


if __name__ == "__main__":
    minilm.run(main)
