"""Tables as tools and papers write them are read right, or refused in one line that says what to do."""

from pathlib import Path

import pytest

from finetune.analysis.table.trials import read_table
from finetune.errors import UserError
from tests.helpers import awkward


@pytest.mark.parametrize("name", awkward.CASES)
def test_awkward_tables(name: str, tmp_path: Path) -> None:
    case = awkward.CASES[name]
    file = tmp_path / f"trials.{case.ending}"
    file.write_bytes(case.text.encode())
    if case.refusal:
        with pytest.raises(UserError) as caught:
            read_table(file, case.metric, case.minimize)
        assert all(words in str(caught.value) for words in case.refusal), str(caught.value)
        assert "\n" not in str(caught.value)
        return
    trials = read_table(file, case.metric, case.minimize)
    reading, expected = trials.reading, case.reading
    assert reading is not None
    found = {
        "axes": {axis.name: axis.scale for axis in trials.axes},
        "seeds": reading.seeds,
        "test": reading.test,
        "fixed": reading.fixed,
        "statuses": trials.frame["status"].tolist(),
        "design": trials.design,
        "minimize": not trials.maximize,
        "not_used": {each.why for each in reading.not_used},
        "repeats": trials.frame["seed"].nunique(),
    }
    assert {key: found[key] for key in found.keys() & expected.keys()} == {
        key: value for key, value in expected.items() if key in found
    }
    assert expected.get("measured", set()) <= set(reading.measured)
    assert expected.get("note", "") in " ".join(reading.notes)
    assert trials.frame["value"].notna().tolist() == [status == "complete" for status in trials.frame["status"]]
