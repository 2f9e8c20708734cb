"""Shares of the variance: against surfaces of known shares, statsmodels, and tables that fill no grid."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api
import statsmodels.formula.api
from scipy import stats

from finetune.analysis.statistics import decomposition
from finetune.analysis.statistics.anova import Anova, anova, good_region
from finetune.analysis.table.trials import Trials, from_frame
from tests.helpers import surfaces
from tests.helpers.surfaces import AXES, NOISE, RATE, REST, SURFACES


def by_terms(found: Anova | None) -> dict[tuple[str, ...], decomposition.Share]:
    assert found is not None
    return {share.terms: share for share in found.shares}


@pytest.mark.parametrize("name", SURFACES)
def test_intervals_of_shares_cover_the_truth_in_200_studies(name: str) -> None:
    surface = SURFACES[name]
    studies = [decomposition.shares(cube, tuple(AXES)) for cube in surfaces.cubes(surface, studies=200, seeds=5)]
    found = {
        terms: [next(each for each in study if each.terms == terms) for study in studies] for terms in surface.shares
    }
    for terms, truth in surface.shares.items():
        covered = np.mean([each.low - 1e-9 <= truth <= each.high + 1e-9 for each in found[terms]])
        assert 0.90 <= covered <= 0.99, terms
        assert np.mean([each.share for each in found[terms]]) == pytest.approx(truth, abs=0.02), terms


@pytest.mark.parametrize("name", SURFACES)
def test_each_share_of_a_large_study_is_right(name: str) -> None:
    surface = SURFACES[name]
    found = by_terms(anova(surfaces.trials(surfaces.cubes(surface, studies=1, seeds=200, seed=1)[0])))
    assert {terms: share.share for terms, share in found.items()} == pytest.approx(surface.shares, abs=0.02)
    assert sum(share.share for share in found.values()) == pytest.approx(1)


@pytest.mark.parametrize("block", [0.0, 0.3], ids=["seeds differ by trial", "seeds move all settings"])
def test_noise_share_covers_the_truth_whether_or_not_seeds_are_shared(block: float) -> None:
    surface, rng = SURFACES["additive"], np.random.default_rng(3)
    truth = (0.2 + block) / (1 + block)
    covered = []
    for cube in surfaces.cubes(surface, studies=100, seeds=4, seed=3):
        shares = decomposition.shares(cube + np.sqrt(block) * rng.normal(size=4), tuple(AXES))
        noise = next(share for share in shares if share.terms == NOISE)
        covered.append(noise.low <= truth <= noise.high)
    assert np.mean(covered) >= 0.9


def test_sums_of_squares_agree_with_statsmodels() -> None:
    cube = surfaces.cubes(SURFACES["interacting"], studies=1, seeds=3)[0]
    parts = decomposition.sums_of_squares(cube, tuple(AXES))
    frame = surfaces.trials(cube).frame
    formula = "utility ~ C(learning_rate) * C(weight_decay) * C(batch_size) + C(seed)"
    table = statsmodels.api.stats.anova_lm(statsmodels.formula.api.ols(formula, frame).fit())
    ours = {"C(seed)": decomposition.SEEDS, "Residual": decomposition.RESIDUAL}
    for row in table.index:
        names = row.replace("C(", "").replace(")", "").split(":")
        part = parts[ours.get(row, REST if len(names) == 3 else tuple(names))]
        assert part.squares == pytest.approx(table.loc[row, "sum_sq"], rel=1e-9), row
        assert part.freedom == table.loc[row, "df"], row
    assert len(table) == len(parts)


@pytest.mark.parametrize(
    "freedom,noncentrality,at_most",
    [(1, 8.0, 0.004), (2, 8.0, 0.003), (6, 60.0, 0.001), (16, 0.1, 0.001), (24, 400.0, 0.001)],
)
def test_normal_quantile_of_noncentral_chi_squared(freedom: float, noncentrality: float, at_most: float) -> None:
    x = stats.ncx2.ppf([0.025, 0.1, 0.5, 0.9, 0.975], freedom, noncentrality)
    found = decomposition._normal_quantile(x, np.array(freedom), np.array(noncentrality))
    np.testing.assert_allclose(stats.norm.cdf(found), [0.025, 0.1, 0.5, 0.9, 0.975], atol=at_most)


def test_without_repeats_chance_is_said_to_be_unknown() -> None:
    surface = SURFACES["interacting"]
    found = anova(surfaces.trials(surface.means[..., None]))
    assert found is not None
    assert "interactions" in found.note
    decay, batch = list(AXES)[1:]
    shares = by_terms(found)
    assert set(shares) == {(RATE,), (decay,), (batch,), REST}
    # By hand: the mean square of all interactions together, which have 45 - 1 - 4 - 2 - 2 degrees of freedom, is the
    # error; an axis has its sum of squares less as many of these as it has degrees of freedom.
    of_axis = {(RATE,): (0.4, 4), (decay,): (0.1, 2), (batch,): (0.0, 2)}
    error = (0.3 + 0.05) / 36
    left = {terms: max(0.0, share - freedom * error) for terms, (share, freedom) in of_axis.items()}
    assert shares[RATE,].share / shares[decay,].share == pytest.approx(left[RATE,] / left[decay,], rel=0.2)
    assert shares[RATE,].evident
    assert not shares[batch,].evident


def test_repeats_that_agree_leave_nothing_to_chance() -> None:
    found = by_terms(anova(surfaces.trials(np.repeat(SURFACES["additive"].means[..., None], 3, axis=-1))))
    assert found[NOISE].share == pytest.approx(0, abs=1e-6)
    assert found[RATE,].share == pytest.approx(0.5 / 0.8, abs=1e-6)
    assert found[RATE,].high - found[RATE,].low < 1e-3


def test_good_region_is_what_the_best_quarter_of_settings_spans_and_stays_a_grid() -> None:
    cube = np.zeros((5, 3, 3, 2))
    cube[2:4] = 1.0  # 18 of 45 settings are good: those with a learning rate of 0.001 or 0.01
    cube[2:4] += 0.1 * np.random.default_rng(0).normal(size=(2, 3, 3, 2))
    trials = surfaces.trials(cube)
    good = good_region(trials)
    assert [axis.values for axis in good.axes if axis.name == RATE] == [(0.001, 0.01)]
    assert good.complete
    whole, part = anova(trials), anova(trials, "good")
    assert whole is not None
    assert part is not None
    assert (whole.region, whole.method, whole.trials) == ("all", "exact", 90)
    assert (part.region, part.method, part.trials) == ("good", "exact", 36)
    assert part.ranges[RATE] == "0.001, 0.01"
    assert whole.ranges[RATE] == "1e-05 to 0.1 (5 values)"
    assert by_terms(whole)[RATE,].share > 0.9 > 0.5 > by_terms(part)[RATE,].share


def test_a_few_divergent_trials_that_decide_the_shares_are_pointed_out() -> None:
    cube = surfaces.cubes(SURFACES["additive"], studies=1, seeds=2)[0]
    cube[4, :2, 0] = -100.0
    found = anova(surfaces.trials(cube))
    assert found is not None
    assert found.note == "The worst 4 trials make up 95% of the variance: see the good region."
    found = anova(surfaces.trials(-cube))  # few trials that stand out by being good need no such warning
    assert found is not None
    assert found.note == ""


def test_trials_that_diverged_count_as_the_worst_seen() -> None:
    cube = surfaces.cubes(SURFACES["additive"], studies=1, seeds=2)[0]
    lost = cube.copy()
    lost[4, 0] = np.nan
    filled = np.where(np.isnan(lost), np.nanmin(lost), lost)
    diverged = surfaces.trials(lost)
    diverged.frame["status"] = diverged.frame["status"].mask(diverged.frame["value"].isna(), "diverged")
    assert anova(diverged) == anova(surfaces.trials(filled))
    assert anova(surfaces.trials(lost)).method != "exact"  # type: ignore[union-attr]  # those that failed are unknown


@pytest.mark.parametrize("minimize", [False, True])
def test_same_input_gives_same_output(minimize: bool) -> None:
    cube = surfaces.cubes(SURFACES["interacting"], studies=1, seeds=2)[0]
    trials = surfaces.trials(cube, minimize)
    shuffled = trials._replace(frame=trials.frame.sample(frac=1, random_state=1).reset_index(drop=True))
    assert anova(trials) == anova(trials)
    for one, other in zip(anova(trials).shares, anova(shuffled).shares, strict=True):  # type: ignore[union-attr]
        assert one[1:] == pytest.approx(other[1:])


def random_search(trials: int, noise: float, repeats: int = 1) -> Trials:
    """Returns a random search whose utility has shares 0.8 of the rate and 0.2 of the optimizer, before noise."""
    rng = np.random.default_rng(0)
    position, optimizer = rng.uniform(-5, -1, trials), rng.integers(2, size=trials)
    surface = np.sqrt(0.8) * (-((position + 3) ** 2) + 4 / 3) / np.sqrt(64 / 45) + np.sqrt(0.2) * (2 * optimizer - 1)
    frame = pd.DataFrame(
        {
            "params_lr": 10**position,
            "params_momentum": rng.uniform(0, 1, trials),
            "params_optimizer": np.array(["adam", "sgd"])[optimizer],
            "score": surface,
        }
    )
    frame = frame.loc[frame.index.repeat(repeats)].reset_index(drop=True)
    frame["score"] += noise * rng.normal(size=len(frame))
    return from_frame(frame, "score", minimize=False)


def test_a_random_search_is_decomposed_by_a_forest() -> None:
    found = anova(random_search(600, noise=0.5))
    assert found is not None
    shares = by_terms(found)
    assert found.method == "random forest fANOVA"
    assert shares["lr",].share == pytest.approx(0.8 / 1.25, abs=0.08)
    assert shares["optimizer",].share == pytest.approx(0.2 / 1.25, abs=0.05)
    assert shares[REST].share == pytest.approx(0.25 / 1.25, abs=0.08)
    assert shares["momentum",].share < 0.02
    assert NOISE not in shares
    assert "chance or interaction" in found.note
    assert [share.terms for share in found.evident] == [("lr",), ("optimizer",)]
    assert np.isnan([share.low for share in found.shares]).all()
    assert found.ranges["lr"].endswith("(600 values)")


def test_a_random_search_with_repeats_tells_chance_apart() -> None:
    shares = by_terms(anova(random_search(150, noise=0.5, repeats=3)))
    assert shares[NOISE].share == pytest.approx(0.25 / 1.25, abs=0.05)


def test_a_forest_makes_nothing_of_noise() -> None:
    trials = random_search(100, noise=0.0)
    rng = np.random.default_rng(1)
    found = by_terms(anova(trials._replace(frame=trials.frame.assign(utility=rng.normal(size=100)))))
    assert found[REST].share > 0.9


def test_what_was_chosen_by_looking_at_results_has_no_shares() -> None:
    trials = random_search(300, noise=0.1)
    assert anova(trials._replace(design="adaptive")) is None
    assert anova(trials, "good") is None


def test_few_trials_and_constant_metrics_have_no_shares() -> None:
    assert anova(random_search(7, noise=0.1)) is None
    assert anova(surfaces.trials(np.ones((5, 3, 3, 2)))) is None
    assert anova(surfaces.trials(np.full((5, 3, 3, 2), np.nan))) is None
