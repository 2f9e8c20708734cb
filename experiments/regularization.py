"""Which regulariser helps, how strong, and does decoupled decay leave the learning rate free?

    python experiments/regularization.py

Each kind has a small grid of strengths x learning rates, and its best setting is compared with the best without. Then
decay x learning rate: how much decay does accuracy bear at each rate? With decay multiplied by the rate (AdamW as
PyTorch has it), independent of it (decay_coupling=independent), and as an l2 penalty inside Adam. To expect: a slope
of 0, an axis-parallel basin, where decay need not be tuned again for another rate; figures/regularization.svg.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair
import answers
import numpy as np
import pandas as pd
import subjects
from absl import app

from finetune.analysis.statistics.resampling import interval, resample
from finetune.analysis.table.trials import Trials

_STRENGTHS = {
    "l1": [1e-5, 1e-4, 1e-3],
    "l2": [1e-4, 1e-3, 1e-2],
    "weight_decay": [1e-2, 1e-1, 1.0],
    "l2_sp": [1e-3, 1e-2, 1e-1],  # has no effect on a head, which has no pretrained weights
    "dropout": [0.1, 0.3, 0.5],
    "label_smoothing": [0.05, 0.1, 0.3],
}
_RATES = [1e-3, 3e-3, 1e-2]
_BASIN_RATES = [float(f"{rate:.3g}") for rate in np.geomspace(1e-3, 3e-2, 5)]
_BASINS = {  # name: (coupling, hyperparameter, smallest, largest)
    "decay times rate": ("learning_rate", "weight_decay", 1e-2, 1e2),
    "independent decay": ("independent", "weight_decay", 1e-4, 1.0),
    "l2 inside Adam": ("learning_rate", "l2", 1e-4, 1.0),
}


def sweep(kinds: dict[str, list[float]]) -> Iterator[dict[str, float]]:
    """Yields no regulariser, then every strength of each, alone."""
    yield {}
    for name, strengths in kinds.items():
        yield from ({name: strength} for strength in strengths)


def compare(trials: Trials, kinds: dict[str, list[float]]) -> pd.DataFrame:
    """Returns kind, setting (of the best), rate, and mean, low, high: test accuracy gained over the best without."""
    frame = trials.frame
    settings = frame.groupby([*kinds, "learning_rate"])["utility"].mean().reset_index()
    none = (settings[list(kinds)] == 0).all(axis=1)

    def best(rows: pd.DataFrame) -> dict[str, Any]:
        return rows.loc[rows["utility"].idxmax(), [*kinds, "learning_rate"]].to_dict()

    without, found = best(settings[none]), []
    for kind in kinds:
        chosen = best(settings[settings[kind] > 0])
        gained = answers.gain(trials, chosen, without)
        found.append((kind, chosen[kind], chosen["learning_rate"], *gained))
    return pd.DataFrame(found, columns=["kind", "strength", "rate", "mean", "low", "high"])


def slope(rates: np.ndarray, decays: np.ndarray, means: np.ndarray) -> float:
    """Returns the slope of the log of the largest decay that stays near the best against the log of the rate.

    means: [rates, decays], both ascending. Only rates at which some decay within the grid is too large count; between
    decays, the place where the tolerance is used up is found by a line.
    """
    floor = means.max() - answers.TOLERANCE.value
    x, y = [], []
    for rate, row in zip(np.log10(rates), means, strict=True):
        good = np.flatnonzero(row >= floor)
        if not len(good) or good[-1] == len(row) - 1:
            continue
        last = good[-1]
        share = (row[last] - floor) / (row[last] - row[last + 1])
        x.append(rate)
        y.append(np.log10(decays[last]) + share * np.log10(decays[last + 1] / decays[last]))
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 2 else float("nan")


def basin(trials: Trials, name: str) -> tuple[float, float, float]:
    """Returns the slope of the edge of the basin, and its 95 % interval over seeds."""
    drawn = resample(trials, trials.settings())
    order = np.lexsort((drawn.settings[name], drawn.settings["learning_rate"]))
    rates, decays = (np.unique(drawn.settings[each]) for each in ("learning_rate", name))
    shape = len(rates), len(decays)
    slopes = [slope(rates, decays, means[order].reshape(shape)) for means in drawn.means]
    known = np.array(slopes)[np.isfinite(slopes)]
    low, high = interval(known) if len(known) else (float("nan"),) * 2
    whole = slope(rates, decays, drawn.settings["mean"].to_numpy()[order].reshape(shape))
    return whole, float(low), float(high)


def basins(directory: Path) -> tuple[list[str], pd.DataFrame]:
    """Returns (a sentence for each way to decay; the cells of their maps)."""
    said, cells = [], []
    for title, (coupling, name, low, high) in _BASINS.items():
        config = subjects.text() if "text" in subjects.SUBJECTS.value else subjects.digits(directory)
        config.optimizer.decay_coupling = coupling
        decays = [float(f"{decay:.3g}") for decay in np.geomspace(low, high, 7)]
        axes = {"learning_rate": _BASIN_RATES, name: decays}
        trials = subjects.at_the_end(subjects.train(config, directory / title.replace(" ", "_"), axes))
        found, settings = basin(trials, name), trials.settings()
        best = settings.iloc[0]
        said.append(
            f"{title} ({name} {low:g} to {high:g}, 7 values): best {best['mean']:.3f} at rate "
            f"{best['learning_rate']:g}, {name} {best[name]:g}; slope of its edge "
            f"{answers.words(found, '+.2f') if np.isfinite(found[0]) else 'unknown, it lies beyond the grid'}"
        )
        good = settings["mean"] - best["mean"] >= -answers.TOLERANCE.value
        cells.append(
            pd.DataFrame(
                {
                    "panel": f"{title} ({name})",
                    "x": [f"{each:.2g}" for each in settings["learning_rate"]],
                    "y": [f"{each:.1e}" for each in settings[name]],
                    "order": settings[name],
                    "mean": settings["mean"],
                    "good": np.where(good, "●", ""),
                }
            )
        )
    return said, pd.concat(cells)


def draw(cells: pd.DataFrame) -> altair.FacetChart:
    """Returns a map of rate x decay for each way to decay, dots where accuracy is near the best."""
    rates = sorted(cells["x"].unique(), key=float)
    base = altair.Chart().encode(
        x=altair.X("x:N", sort=rates, title="learning rate", axis=altair.Axis(labelAngle=0)),
        y=altair.Y("y:N", sort=altair.EncodingSortField("order", order="descending"), title="decay"),
    )
    colour = altair.Color("mean:Q", scale=altair.Scale(scheme="yellowgreenblue", zero=False), title="accuracy")
    marks = base.mark_text(color="white", fontSize=9).encode(text="good:N")
    return answers.panels(altair.layer(base.mark_rect().encode(color=colour), marks), cells)


def main(_: list[str]) -> None:
    directory = subjects.workdir("regularization")
    print(f"Best of each kind less the best without any, test accuracy paired by seed, {subjects.SEEDS.value} seeds:")
    for subject, config in subjects.configs(directory).items():
        kinds = {name: each for name, each in _STRENGTHS.items() if config.trainable == "all" or name != "l2_sp"}
        trials = subjects.train(config, directory / config.data.name, {"learning_rate": _RATES}, sweep(kinds))
        for row in compare(trials, kinds).itertuples():
            gained = answers.words((row.mean, row.low, row.high), "+.3f")
            print(f"  {subject}: {row.kind} {row.strength:g} at rate {row.rate:g}: {gained}")
    print(f"Kinds in {', '.join(f'{name} {each}' for name, each in _STRENGTHS.items())}; rates {_RATES}.")
    said, cells = basins(directory)
    print(
        f"The largest decay within {answers.TOLERANCE.value:g} of the best, by accuracy at the last epoch, "
        "against the rate:"
    )
    print("\n".join(f"  {each}" for each in said))
    print(
        f"Rates {_BASIN_RATES[0]:g} to {_BASIN_RATES[-1]:g} (5 values); intervals over seeds. Stronger regularisers, "
        "fewer labels or longer training could make more of them; slopes hold for AdamW with a cosine."
    )
    answers.save(draw(cells), "regularization", "Accuracy over rate and decay; dots: near the best of the map")


if __name__ == "__main__":
    app.run(main)
