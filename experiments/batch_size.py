"""How does the best learning rate of AdamW grow with the batch size, at fixed epochs and at a fixed number of updates?

    python experiments/batch_size.py

To expect: theory says the square root of the batch size for Adam (Malladi et al. 2022) at a fixed number of examples;
the answer in sentences, and figures/batch_size.svg.
"""

from collections.abc import Iterator

import answers
import pandas as pd
import subjects
from absl import app, flags

from finetune.analysis.evidence import weigh
from finetune.analysis.interactions import Shift, interactions
from finetune.analysis.table.trials import Trials
from finetune.config import Config

_UPDATES = flags.DEFINE_multi_integer("updates", [100, 300], "fixed number of updates: on the digits, on the texts")

_BATCHES = {"digits": (10, 20, 50, 100), "20newsgroups": (10, 20, 50, 100, 200, 500)}  # divide the number of examples
_RATES = {
    "digits": [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2],
    "20newsgroups": [5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1],
}


def sweeps(config: Config) -> Iterator[tuple[str, list[dict[str, int]]]]:
    """Yields (what is fixed, batch sizes with their epochs)."""
    batches, name = _BATCHES[config.data.name], config.data.name
    examples, updates = config.data.train_examples, _UPDATES.value[name != "digits"]
    epochs = config.hparams.epochs
    yield f"{epochs} epochs", [{"batch_size": batch} for batch in batches]
    by_updates = [{"batch_size": batch, "epochs": max(1, round(updates * batch / examples))} for batch in batches]
    yield f"{updates} updates", by_updates


def find(trials: Trials) -> Shift:
    """Returns how the best rate, by accuracy at the end of training, moves with the batch size alone."""
    alone = tuple(axis for axis in trials.axes if axis.name != "epochs")
    shifts, _ = interactions(weigh(subjects.at_the_end(trials)._replace(axes=alone)))
    return next(shift for shift in shifts if shift.by == "batch_size")


def sentence(name: str, shift: Shift) -> str:
    """Returns the exponent in words, beside 0.5 and 1."""
    low, high = shift.exponent_low, shift.exponent_high
    laws = {"the square root": 0.5, "the linear rule": 1.0, "no change at all": 0.0}
    agree = [law for law, exponent in laws.items() if low <= exponent <= high]
    nearest = min(laws, key=lambda law: abs(laws[law] - shift.exponent))
    verdict = f"agrees with {' and '.join(agree)}" if agree else f"agrees with no law exactly, nearest: {nearest}"
    return (
        f"{name}: exponent {answers.words((shift.exponent, low, high), '.2f')}, which {verdict}; "
        f"best rate {answers.moves(shift)}."
    )


def main(_: list[str]) -> None:
    directory = subjects.workdir("batch_size")
    said, rows = [], []
    for subject, config in subjects.configs(directory).items():
        rates = _RATES[config.data.name]
        said.append(
            f"{subject}, rates {rates[0]:g} to {rates[-1]:g} ({len(rates)} values), {subjects.SEEDS.value} seeds"
        )
        for fixed, sweep in sweeps(config):
            place = directory / f"{config.data.name}_{fixed.split()[1]}"
            shift = find(subjects.train(config, place, {"learning_rate": rates}, sweep))
            said.append(f"  {sentence(f'at {fixed}', shift)}")
            points = shift.points.rename(columns={"value": "x", "best": "mean"})
            rows.append(points.assign(panel=subject, fixed=fixed))
    print("\n".join(said))
    print(
        "The best rate is a parabola's vertex through the best rate of the grid and its neighbours, by accuracy at the "
        "last epoch. A schedule without warm-up, SGD in place of AdamW, or a best rate at an edge would change this."
    )
    chart = answers.lines(pd.concat(rows), "batch size", "best learning rate", "fixed", log_y=True)
    answers.save(chart, "batch_size", "Best learning rate against batch size, 95 % over seeds")


if __name__ == "__main__":
    app.run(main)
