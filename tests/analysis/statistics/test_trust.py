"""What the answers claim of simulated studies: benchmarks/trust.py at a small size."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
trust = pytest.importorskip("trust")

STUDIES = 24


@pytest.mark.slow
@pytest.mark.parametrize("scenario", list(trust.SCENARIOS))
def test_claims_are_rarely_false_and_intervals_hold_the_truth(scenario: str) -> None:
    """Bounds leave room for three standard errors of so few studies; the benchmark has the targets themselves."""
    found = trust.table([scenario], [3], STUDIES, 1).iloc[0]
    false = found[[name for name in found.index if name.startswith("false ")]].dropna()
    cover = found[[name for name in found.index if name.startswith("cover ")]].dropna()
    assert (false <= 0.2).all(), false
    assert (cover >= 0.8).all(), cover
    if "tied" in found:
        assert found["tied"] >= 0.85
    if "power" in found:
        assert found["power"] >= 0.6
