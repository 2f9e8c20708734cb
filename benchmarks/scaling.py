"""What a head costs against the number of trials, of texts and of epochs, and the same with the encoder in every step.

    python benchmarks/scaling.py --output=benchmarks/scaling.png

Each point trains a whole population to its end, evaluation included, as a study does once it is compiled; the frozen
encoder's pass over the training and validation texts is added. Features are random numbers of the real ones' shape,
since their values do not matter to the time; the pass is timed on real texts, as seconds a text. "In every step" is
that time for every text that every trial reads in every epoch, which is what no trunk saves.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import altair as alt
import minilm
import ours
import pandas as pd
import timing
from absl import flags

from finetune.config import Config
from finetune.population.train import Listener, begin, train_chunk
from finetune.study import problem as subjects
from finetune.study.plan import make_recipe
from finetune.study.problem import Subject
from finetune.trials.grid import make_trials
from finetune.trunk.choice import choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import feature_store

_CONFIG = minilm.define_config_flag()
_MEMBERS = flags.DEFINE_list("members", ["1", "4", "16", "64", "256", "1024"], "numbers of trials")
_EXAMPLES = flags.DEFINE_list("examples", ["250", "500", "1000", "2000", "4000"], "numbers of training texts")
_EPOCHS = flags.DEFINE_list("epochs", ["1", "3", "10", "30"], "numbers of epochs")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/scaling.png", "the plot; a .png, .svg or .html file")

_TRIALS = 64  # where something else is varied
_PASS_BATCHES = 4  # of the pass that is timed
_LISTENER = Listener(epoch=lambda rows: None, left=lambda rows, leaves: None, pause=lambda population: None)
_ROWS_A_CALL = 10_000  # whole epochs
_WAYS = ("in all", "training alone", "encoder in every step")


class Point(NamedTuple):
    """A study: one of the three numbers is varied."""

    varied: str
    trials: int
    texts: int
    epochs: int


def _points(config: Config) -> Iterator[Point]:
    """Yields the studies; what is not varied is as in the config."""
    texts, epochs = config.data.train_examples, config.hparams.epochs
    for value in _MEMBERS.value:
        yield Point("trials", int(value), texts, epochs)
    for value in _EXAMPLES.value:
        yield Point("texts", _TRIALS, int(value), epochs)
    for value in _EPOCHS.value:
        yield Point("epochs", _TRIALS, texts, int(value))


def _train_seconds(config: Config, subject: Subject, point: Point) -> float:
    """Returns what training a population to its end takes once everything is compiled."""
    config.hparams.epochs = point.epochs
    validation = len(subject.dataset.validation["label"])
    splits = ours.first(subject.dataset[:3], point.texts, validation, validation)
    trials = make_trials(config, {"seed": list(range(point.trials))})
    measured = ours.prepare(config, subject, splits, trials, real=False).measured
    named = {str(number): trial for number, trial in enumerate(trials)}
    size = measured.execution.size
    if size < point.trials:
        raise SystemExit(f"{point.trials} trials do not fit into memory together, allowed: {size}")

    def train() -> None:
        train_chunk(measured, begin(measured, named, size, {}), _ROWS_A_CALL, _LISTENER)

    train()  # compiles what is left
    return timing.once(train)


def _pass_seconds(config: Config, subject: Subject) -> float:
    """Returns the time that the frozen encoder takes for a text."""
    batch = config.evaluation.batch_size
    splits = ours.first(subject.dataset[:3], _PASS_BATCHES * batch, batch, batch)
    trials = make_trials(config, {})
    recipe = make_recipe(config, subject.task, subject.shapes, trials, _PASS_BATCHES * batch)
    trunk = choose_trunk(config.trunk, recipe, subject.shapes, splits, trials, ours.ROOM)
    trunk_pass = Pass([trunk], subject.base, splits, batch, feature_store(config.trunk))
    texts = sum(len(split["label"]) for split in splits)
    return timing.in_turns({"pass": lambda: trunk_pass.run(lambda: None)}, 2)["pass"] / texts


def _row(point: Point, train_seconds: float, pass_seconds: float, validation: int) -> dict[str, Any]:
    read = point.texts + validation
    return {
        **point._asdict(),
        "in all": train_seconds + read * pass_seconds,
        "training alone": train_seconds,
        "encoder in every step": train_seconds + point.trials * point.epochs * read * pass_seconds,
    }


def _chart(table: pd.DataFrame) -> alt.HConcatChart:
    panels = []
    for varied, rows in table.groupby("varied", sort=False):
        rows = rows.melt(id_vars=varied, value_vars=_WAYS, var_name="way", value_name="seconds")
        lines = alt.Chart(rows, title=f"number of {varied}", width=230, height=230).mark_line(point=True)
        x, y = alt.X(f"{varied}:Q", scale=alt.Scale(type="log")), alt.Y("seconds:Q", scale=alt.Scale(type="log"))
        panels.append(lines.encode(x.title(None), y.title("seconds"), alt.Color("way:N", sort=_WAYS, title=None)))
    return alt.hconcat(*panels)


def main() -> None:
    config = _CONFIG.value
    config.trunk.mode = "cached"
    points = list(_points(config))
    config.data.train_examples = max(point.texts for point in points)
    subject = subjects.load(config)
    validation = len(subject.dataset.validation["label"])
    pass_seconds = _pass_seconds(config, subject)
    rows = [_row(point, _train_seconds(config, subject, point), pass_seconds, validation) for point in points]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    print(f"{validation} validation texts; the encoder takes {1e3 * pass_seconds:.2f} ms a text")
    print(", ".join(f"{name} {value}" for name, value in timing.machine().items()))
    _chart(table).save(_OUTPUT.value, scale_factor=2)


if __name__ == "__main__":
    minilm.run(main)
