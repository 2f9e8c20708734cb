"""How wide is the region of good learning rates, and does it depend on the part of the model that trains?

    python experiments/learning_rate.py

To expect: few parameters want a larger rate than all of them; the answer in sentences, and figures/learning_rate.svg.
"""

import answers
import numpy as np
import pandas as pd
import subjects
from absl import app, flags
from scipy import stats

from finetune.analysis.effects import effects
from finetune.analysis.evidence import weigh
from finetune.analysis.statistics.resampling import resample
from finetune.analysis.table.trials import Trials

_RATES = [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 1, 9)]


def ends(positions: np.ndarray, means: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Returns where means first and last are within `tolerance` of the best around it, between rates by lines."""
    floor, top = means.max() - tolerance, int(means.argmax())
    found = []
    for step, last in ((-1, 0), (1, len(means) - 1)):
        place = top
        while place != last and means[place + step] >= floor:
            place += step
        if place == last:
            found.append(positions[place])
        else:
            share = (means[place] - floor) / (means[place] - means[place + step])
            found.append(positions[place] + share * (positions[place + step] - positions[place]))
    return float(found[0]), float(found[1])


def region(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Returns (log10 of the ends of the good region [2]; draws of it over seeds [draws, 2])."""
    resampled = resample(trials, trials.settings())
    order = np.argsort(resampled.settings["learning_rate"].to_numpy())
    positions = np.log10(resampled.settings["learning_rate"].to_numpy()[order])
    means = resampled.settings["mean"].to_numpy()[order]
    draws = [ends(positions, each[order], answers.TOLERANCE.value) for each in resampled.means]
    return np.array(ends(positions, means, answers.TOLERANCE.value)), np.array(draws)


def sentence(name: str, trials: Trials) -> str:
    """Returns the good region of one arm in words."""
    (low, high), draws = region(trials)
    best = trials.settings().iloc[0]
    mean, half = best["mean"], stats.t.isf(0.025, best["n"] - 1) * best["std"] / np.sqrt(best["n"])
    width = (high - low, *np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975]))
    edge = ", cut off by the edge of the grid" if {low, high} & set(np.log10([_RATES[0], _RATES[-1]])) else ""
    return (
        f"{name}: best at {best['learning_rate']:g} with {answers.words((mean, mean - half, mean + half))}; within "
        f"{answers.TOLERANCE.value:g} of it from {10**low:.2g} to {10**high:.2g}, "
        f"{answers.words(width, '.1f')} decades{edge}."
    )


def main(_: list[str]) -> None:
    directory = subjects.workdir("learning_rate")
    arms, rows = {}, []
    for subject, config in subjects.configs(directory).items():
        for part in ("all", "head") if config.trainable == "all" else ("head",):
            config.trainable = part
            place = directory / f"{config.data.name}_{part}"
            arms[subject, part] = trials = subjects.train(config, place, {"learning_rate": _RATES})
            points = next(each.points for each in effects(weigh(trials)) if each.kind == "isolated")
            rows.append(points.assign(x=points["value"], panel=subject, part=part))
    print(
        f"Learning rates {_RATES[0]:g} to {_RATES[-1]:g} (9 values), {subjects.SEEDS.value} seeds; "
        "accuracy on validation:"
    )
    for (subject, part), trials in arms.items():
        print(f"  {sentence(f'{subject}, {part}', trials)}")
    print(
        "Another optimizer, schedule or batch size moves the region; more seeds make its ends sharper, and a tolerance "
        "below the noise of seeds makes it meaningless."
    )
    chart = answers.lines(pd.concat(rows), "learning rate", "validation accuracy", "part")
    answers.save(chart, "learning_rate", "Accuracy against learning rate, 95 % over seeds")


if __name__ == "__main__":
    flags.set_default(answers.TOLERANCE, 0.02)  # digits scatter by more than the default
    app.run(main)
