"""Is halving worth it? Replayed on full grids of this project, where the end of every trial is known.

python benchmarks/halving.py WORKDIR [--replays=400] [--trials=48] [--only=digits,r8,lora]

Three studies are trained whole in WORKDIR, 64 settings with 4 seeds each: all of a small ViT on digits, LoRA on the
same, and a head on MiniLM for R8. A replay draws some settings and one seed, halves them by their curves, and picks the
best of those that came to their end; the whole study picks the best of all of them. Both picks are judged by the other
three seeds: the replay holds if its pick is at most one standard error of such a mean behind. Beside it stands what is
as simple as can be: one epoch for all, and then the best few to their end, as many as cost the same.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from finetune.config import Config, DataConfig, ModelConfig
from finetune.search.halving import Halving, Runner
from finetune.search.search import Search
from finetune.search.space import parse
from finetune.storage import records
from finetune.study.run import run

SETTINGS, SEEDS = 64, 4
VIT = {"name": "vit", "pretrained": "", "width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "patch_size": 4}
RULES = [
    *(Halving(3, start) for start in (0.05, 0.1, 0.2)),
    *(Halving(eta, 0.1, 0.1, 1) for eta in (3, 5)),  # one rung
]


def digits(trainable: str, epochs: int) -> Config:
    config = Config(trainable=trainable)
    config.model = ModelConfig(**VIT)
    config.data = DataConfig(name="digits", train_examples=600, validation_examples=400)
    config.hparams.epochs = epochs
    return config


def r8() -> Config:
    config = Config(trainable="head")
    config.model.pretrained = "minilm"
    config.data.name = "r8"
    config.data.train_examples, config.data.validation_examples, config.data.max_length = 1000, 500, 64
    config.hparams.epochs = 20
    return config


GRIDS = {
    "digits": (digits("all", 20), ["learning_rate=log:1e-4:1e-1", "weight_decay=log:1e-4:1", "batch_size=25,50"]),
    "lora": (digits("lora", 20), ["learning_rate=log:1e-4:1e-1", "lora_rank=1,2,4,8", "batch_size=25,50"]),
    "r8": (r8(), ["learning_rate=log:1e-5:1e-1", "weight_decay=log:1e-4:1", "batch_size=25,50"]),
}


class Grid:
    """values: the metric after each epoch [settings, seeds, epochs], larger is better, -inf once diverged."""

    def __init__(self, name: str, directory: Path):
        config, space = GRIDS[name]
        settings = Search(parse(space, config), trials=SETTINGS).checked().wave(0, [])
        asked = [setting | {"seed": seed} for setting in settings for seed in range(SEEDS)]
        self.name, results = name, run(config, directory / name, {}, asked)
        self.ids = np.array([row["id"] for row in results.trials]).reshape(SETTINGS, SEEDS)
        epochs = config.hparams.epochs
        values = {identity: np.full(epochs, -np.inf) for identity in self.ids.ravel()}
        for row in records.stream(directory / name / "curves.jsonl"):
            value = row["val_accuracy"]
            values[row["id"]][row["epoch"] - 1] = -np.inf if value is None else value
        best = np.array([[values[identity] for identity in seeds] for seeds in self.ids])
        self.reached = np.maximum.accumulate(best, axis=2)  # the best so far
        self.epochs = epochs

    def end(self, setting: int, seed: int) -> float:
        return float(self.reached[setting, seed, -1])


def halve(grid: Grid, rule: Halving, settings: np.ndarray, seed: int) -> dict[int, int]:
    """Returns after which epoch each setting is out, whether it is of the control or not."""
    out: dict[int, int] = {}
    for epoch in range(1, grid.epochs):
        runners = {
            str(place): Runner(grid.epochs, float(grid.reached[place, seed, epoch - 1]))
            for place in settings
            if place not in out
        }
        out |= dict.fromkeys(map(int, rule.verdicts(epoch, runners)), epoch)
    return out


def judged(grid: Grid, pick: int, seed: int) -> float:
    return float(np.delete(grid.reached[pick, :, -1], seed).mean())


def replay(grid: Grid, rule: Halving, settings: np.ndarray, seed: int, chance: np.random.Generator) -> dict[str, float]:
    """Returns how a rule does on some settings with one seed."""
    out = halve(grid, rule, settings, seed)
    control = {int(place) for place in settings if chance.random() < rule.control}
    spared = control & out.keys()
    trained = {place: grid.epochs if place in control else out.get(place, grid.epochs) for place in settings}
    share = sum(trained.values()) / (grid.epochs * len(settings))
    ended = [place for place, epochs in trained.items() if epochs == grid.epochs]
    top = max(1, math.floor((share * grid.epochs - 1) * len(settings) / (grid.epochs - 1)))
    simple = sorted(settings, key=lambda place: -grid.reached[place, seed, 0])[:top]
    picks = {name: max(some, key=lambda place: grid.end(place, seed))
             for name, some in (("halving", ended), ("simple", simple), ("whole", list(settings)))}  # fmt: skip
    went_on = max(grid.end(place, seed) for place in settings if place not in out)
    wrong = {place for place in out if grid.end(place, seed) > went_on}
    interval = stats.binomtest(len(wrong & spared), len(spared)).proportion_ci(0.95, "exact") if spared else (0.0, 1.0)
    others = np.delete(grid.reached[settings, :, -1], seed, axis=1)
    near = others[np.argsort(-others.mean(1))[: len(others) // 4]]  # of settings that may be picked
    error = math.sqrt(near.var(axis=1, ddof=1).mean() / (SEEDS - 1))
    truth = judged(grid, picks["whole"], seed)
    found = {f"{name}_lost": truth - judged(grid, picks[name], seed) for name in ("halving", "simple")}
    return found | {
        "share": share,
        "holds": found["halving_lost"] <= error,
        "simple_holds": found["simple_lost"] <= error,
        "wrong": len(wrong) / len(out),
        "covers": interval[0] <= len(wrong) / len(out) <= interval[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", nargs="?", default=tempfile.gettempdir())
    parser.add_argument("--replays", type=int, default=400)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--only", default=",".join(GRIDS))
    given = parser.parse_args()
    for name in given.only.split(","):
        grid = Grid(name, Path(given.workdir))
        for rule in RULES:
            chance = np.random.default_rng(0)
            found = [
                replay(grid, rule, chance.permutation(SETTINGS)[: given.trials], int(chance.integers(SEEDS)), chance)
                for _ in range(given.replays)
            ]
            rungs = rule.most_rungs or "all"
            mean = {key: np.mean([each[key] for each in found]) for key in found[0]}
            better = np.array([each["simple_lost"] - each["halving_lost"] for each in found])
            print(
                f"{name}: eta {rule.eta}, start {rule.start:g}, {rungs} rungs: {mean['share']:.0%} of the "
                f"steps; holds in {mean['holds']:.1%}, one epoch and the best few in {mean['simple_holds']:.1%}; loses "
                f"{mean['halving_lost']:+.4f} and {mean['simple_lost']:+.4f}, less by {better.mean():+.4f} ± "
                f"{1.96 * better.std(ddof=1) / math.sqrt(len(better)):.4f}; {mean['wrong']:.1%} of stops are wrong, "
                f"the interval covers that in {mean['covers']:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
