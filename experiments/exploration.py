"""How many trials at random, and how many seeds, find what a full grid finds?

    python experiments/exploration.py

One grid is trained once; searches are drawn from its table. To expect: a few settings at random come near the best, and
only seeds tell the near ones apart; the answer in sentences, and figures/exploration.svg.
"""

import answers
import numpy as np
import pandas as pd
import subjects
from absl import app, flags

from finetune.analysis.answer import analyse
from finetune.analysis.statistics.anova import cube
from finetune.analysis.table.trials import Trials

_DRAWS = flags.DEFINE_integer("draws", 4000, "searches drawn for each size", lower_bound=10)

_GRID = {
    "learning_rate": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    "batch_size": [20, 100],
    "weight_decay": [0.0, 0.1, 1.0],
    "label_smoothing": [0.0, 0.1],
}


def search(utilities: np.ndarray, tried: int, seeds: int, random: np.random.Generator) -> np.ndarray:
    """Returns how far the picks of random searches lie behind the best setting, by means over all seeds, [draws].

    utilities: [settings, seeds]. A search tries `tried` settings without repetition, each with the same `seeds` seeds
    drawn without repetition, and picks the best mean.
    """
    truth = utilities.mean(1)
    behind = []
    for _ in range(_DRAWS.value):
        rows = random.permutation(len(utilities))[:tried]
        columns = random.permutation(utilities.shape[1])[:seeds]
        pick = rows[utilities[np.ix_(rows, columns)].mean(1).argmax()]
        behind.append(truth.max() - truth[pick])
    return np.array(behind)


def searches(utilities: np.ndarray) -> pd.DataFrame:
    """Returns mean, low and high (90 % of searches), and near (share within the tolerance) for each search."""
    settings, seeds = utilities.shape
    random, rows = np.random.default_rng(0), []
    for repeats in [each for each in (1, 2, 3, 5) if each < seeds]:
        for tried in sorted({each for each in (2, 4, 8, 16, 32, 64, settings) if each <= settings}):
            behind = search(utilities, tried, repeats, random)
            low, high = np.quantile(behind, [0.05, 0.95])
            near = float(np.mean(behind <= answers.TOLERANCE.value))
            rows.append((repeats, tried, tried * repeats, float(behind.mean()), float(low), float(high), near))
    return pd.DataFrame(rows, columns=["seeds", "tried", "x", "mean", "low", "high", "near"])


def sentences(table: pd.DataFrame, settings: int) -> list[str]:
    """Returns the answer: sizes of searches that are near enough in 90 % of draws, and what seeds add."""
    said, tolerance = [], answers.TOLERANCE.value
    for seeds, rows in table.groupby("seeds"):
        enough = rows[rows["near"] >= 0.9]
        size = f"{enough['tried'].iloc[0]} settings" if len(enough) else f"not even all {settings}"
        whole = rows.iloc[-1]
        said.append(
            f"with {seeds} {'seed' if seeds == 1 else 'seeds'}, settings that end within {tolerance:g} of the "
            f"best in 9 of 10 searches: {size}; a search of all {settings} picks one {whole['mean']:.4f} behind "
            f"(90 % of them {whole['low']:.4f} to {whole['high']:.4f})"
        )
    for budget in (16, 32, 64):
        equal = table[table["x"] == budget].sort_values("seeds")
        parts = [f"{row.tried:.0f} x {row.seeds:.0f}: {row.mean:.4f}" for row in equal.itertuples()]
        if len(parts) > 1:
            said.append(f"{budget} trials as settings x seeds, mean behind the best: {', '.join(parts)}")
    return said


def main(_: list[str]) -> None:
    directory = subjects.workdir("exploration")
    subject, config = next(iter(subjects.configs(directory).items()))
    trials: Trials = subjects.train(config, directory / config.data.name, _GRID)
    utilities = cube(trials).reshape(-1, trials.frame["seed"].nunique())
    table = searches(utilities)
    settings, spread = len(utilities), float(np.sqrt(utilities.var(1, ddof=1).mean()))
    print(
        f"{subject}: {' x '.join(map(str, map(len, _GRID.values())))} = {settings} settings of {', '.join(_GRID)}, "
        f"{utilities.shape[1]} seeds; means over all seeds are taken for the truth. The best reaches "
        f"{utilities.mean(1).max():.4f}, the middle one {np.median(utilities.mean(1)):.4f}; "
        f"seeds scatter by {spread:.4f}."
    )
    print("\n".join(f"  {each}" for each in sentences(table, settings)))
    print(f"The whole grid: {analyse(trials).recommendation.sentence}")
    print(
        "Rates from 3e-4 to 0.3 (7 values). A wider range, more hyperparameters that matter, or noisier seeds make "
        "searches need more; the validation split is the same for all, so its own chance is not counted."
    )
    table = table.assign(panel="", search=[f"{seeds} seeds" if seeds > 1 else "1 seed" for seeds in table["seeds"]])
    chart = answers.lines(table, "trials", "accuracy behind the best of the grid", "search")
    answers.save(chart, "exploration", "How far a random search ends behind the best, 90 % of searches")


if __name__ == "__main__":
    flags.set_default(subjects.SUBJECTS, ["text"])
    flags.set_default(subjects.SEEDS, 10)
    flags.set_default(answers.TOLERANCE, 0.005)  # about what seeds scatter by
    app.run(main)
