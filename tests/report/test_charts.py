"""Charts: what their titles claim, what they show, and that they stay small."""

import json

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.effects import effects
from finetune.analysis.evidence import weigh
from finetune.analysis.table.axis import Axis, make_axis
from finetune.analysis.table.trials import from_frame, read_study
from finetune.report import charts, page, scale, theme
from finetune.report.charts import effect
from tests.helpers import reports

RATE = make_axis("rate", [0.001, 0.01, 0.1])


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    answer = analyse(read_study(reports.write_study(tmp_path_factory.mktemp("charts") / "study")))
    return {figure.name: figure for figure in charts.figures(answer)}


@pytest.mark.parametrize(
    "means, deviation, seeds, maximize, said",
    [
        ([0.1, 0.9, 0.2], 0.01, 3, True, "rate: 0.01 is in the settings that may be the best"),
        ([0.1, 0.9, 0.2], 0.01, 3, False, "rate: 0.001 is in the settings that may be the best"),
        ([0.1, 0.9, 0.9], 0.01, 3, True, "rate: 0.01 and 0.1 are in the settings that may be the best"),
        ([0.5, 0.5, 0.5], 0.01, 3, True, "rate: no value is better than the others beyond chance"),
        ([0.1, 0.9, 0.2], 0.01, 1, True, "rate: 0.01 is the best seen; how sure is not known"),
        ([np.inf] * 3, 0.01, 3, True, "rate: no run has a value"),
    ],
)
def test_title_of_an_effect_is_its_message(means, deviation, seeds, maximize, said):
    offsets = deviation * np.array([[-1, 0, 1], [0, 1, -1], [1, -1, 0]])[:, :seeds]
    rows = [
        (rate, seed, mean + offset)
        for rate, mean, row in zip(RATE.values, means, offsets, strict=True)
        for seed, offset in enumerate(row)
    ]
    trials = from_frame(pd.DataFrame(rows, columns=["rate", "seed", "score"]), "score", not maximize)
    evidence = weigh(trials)
    (isolated,) = (each for each in effects(evidence) if each.kind == "isolated")
    assert effect.message(isolated, evidence) == said


@pytest.mark.parametrize(
    "value, text",
    [
        (0.001, "0.001"),
        (0.000316228, "0.000316"),
        (1e-8, "1e-8"),
        (1024, "1024"),
        (1234.5, "1230"),
        (0.0, "0"),
        (3e9, "3e9"),
    ],
)
def test_numbers_are_short(value, text):
    assert scale.label(RATE, value) == text


def test_words_stay_as_they_are():
    assert scale.label(Axis("kind", "category", ("1e-3", "a")), "1e-3") == "1e-3"


def test_a_few_bad_runs_do_not_flatten_a_chart():
    values = pd.Series([0.90, 0.91, 0.92, 0.93, 0.94, -1e6, np.nan, np.inf])
    low, high = scale.visible(values, maximize=True)
    assert 0.8 < low < 0.9 < 0.94 < high < 1.0
    low, high = scale.visible(-values, maximize=False)
    assert -1.0 < low < -0.94 < -0.9 < high < -0.8


def test_half_of_the_runs_being_bad_is_shown():
    low, _ = scale.visible(pd.Series([0.9, 0.91, 0.92, 0.1, 0.1, 0.1]), maximize=True)
    assert low < 0.1


def test_a_sample_holds_the_best_and_is_the_same_each_time():
    frame = pd.DataFrame({"utility": np.random.default_rng(0).permutation(5000).astype(float)})
    drawn = scale.drawn(frame, 1000)
    assert len(drawn) == 1000
    assert set(range(4900, 5000)) <= set(drawn["utility"].astype(int))
    pd.testing.assert_frame_equal(drawn, scale.drawn(frame, 1000))


def test_rates_lie_at_equal_steps_on_a_log_axis():
    encoding = scale.of_axis(RATE).to_dict()
    assert encoding["axis"]["values"] == pytest.approx([-3, -2, -1])
    assert "0.001" in encoding["axis"]["labelExpr"]


def test_round_numbers():
    assert scale.round_numbers(1, 50) == pytest.approx([1, 2, 5, 10, 20, 50])
    assert scale.round_numbers(1e-8, 1e4) == pytest.approx([10.0**power for power in range(-8, 5)])


def test_diverged_runs_are_marked(figures):
    data = figures["effect_learning_rate"].specification()["datasets"]
    rows = [row for rows in data.values() for row in rows if row.get("kind") == "diverged"]
    assert {row["id"] for row in rows} == {f"0.1-0.1-{seed}" for seed in range(3)}
    assert "12 % of runs diverged or failed, in 1 of" in figures["divergence"].title


def test_heat_map_holds_means_over_seeds(figures):
    data = figures["map_learning_rate_weight_decay"].specification()["datasets"]
    cells = {(row["x"], row["y"]): row for rows in data.values() for row in rows}
    for rate in (1e-4, 1e-3, 1e-2):
        mean = np.mean([reports.accuracy(rate, 0.0, seed) for seed in range(3)])
        assert cells[f"{rate:g}", "0"]["mean"] == pytest.approx(mean, rel=1e-6)
    assert cells["0.1", "0.1"]["diverged"] == 1


def test_every_chart_has_a_message_and_colours_of_the_palette(figures):
    assert {"effects", "shares", "certainty", "interactions", "training", "runs"} <= {
        figure.section for figure in figures.values()
    }
    for figure in figures.values():
        assert figure.title
        assert set(figure.specification()) >= {"data" if "mark" in figure.specification() else "layer", "config"}
        assert "var(--" in json.dumps(figure.specification())
        assert "var(--" not in figure.for_file()
    assert set(theme.LIGHT) == set(theme.DARK)


def contrast(first, second):
    """WCAG 2.2, contrast ratio of two colours."""
    levels = []
    for colour in (first, second):
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_can_be_read(palette):
    for text in ("ink", "muted", "accent", "best", "bad"):
        for paper in ("paper", "panel"):
            assert contrast(palette[text], palette[paper]) >= 4.5
    assert contrast(palette["run"], palette["paper"]) >= 3


def test_many_trials_make_a_small_page():
    """3,000 trials; charts draw samples of them, so that 20,000 are not much larger but for the table."""
    random = np.random.default_rng(0)
    rate, kind = 10 ** random.uniform(-5, 0, 3000), random.choice(["a", "b"], 3000)
    frame = pd.DataFrame({"config.rate": rate, "config.kind": kind, "score": -((np.log10(rate) + 2) ** 2)})
    answer = analyse(from_frame(frame, "score", minimize=False))
    figures = charts.figures(answer)
    rows = [len(rows) for figure in figures for rows in figure.specification()["datasets"].values()]
    assert max(rows) <= 1500
    assert len(page.render(answer, figures)) < 4e6


def test_only_curves_that_leave_the_chart_are_clipped(figures):
    drawn = figures["curves"].specification()
    for layer in drawn["layer"]:
        low, high = layer["encoding"]["y"]["scale"]["domain"]
        reach = {}
        for row in drawn["datasets"][layer["data"]["name"]]:
            reach.setdefault(row["id"], []).append(low <= row["y"] <= high)
        assert all(all(inside) is not layer["mark"]["clip"] for inside in reach.values())


def test_every_chart_is_valid_vega_lite(figures):
    for figure in figures.values():
        figure.chart.to_dict(validate=True)  # raises; what is written is not validated again
