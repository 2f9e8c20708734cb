"""The report as a file: whole, safe, refreshed while a study runs; and the command that writes it."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from finetune import report
from finetune.analysis.answer import analyse
from finetune.analysis.table.trials import read_study
from finetune.errors import UserError
from finetune.report import __main__ as command
from finetune.report import comparison, page, provenance, terminal
from tests.helpers import reports


class Page(HTMLParser):
    """What a browser would read: texts of scripts, whole text, addresses."""

    def __init__(self, html: str):
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.text, self.addresses, self.tags, self._inside = "", [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append(tag)
        self.addresses += [known[name] for name in ("src", "href", "action") if name in known]
        self._inside = known.get("id", f"script{len(self.scripts)}") if tag == "script" else tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, text):
        if self.tags and self.tags[-1] == "script" and self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + text
        elif self._inside != "style":
            self.text += text


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = reports.write_study(tmp_path_factory.mktemp("report") / "study")
    return workdir, report.write(workdir)


@pytest.fixture(scope="module")
def read(study):
    return Page((study[0] / "report.html").read_text())


def test_the_first_screen_answers(read):
    answer = read.text[: read.text.index("What each hyperparameter does")]
    assert "learning_rate" in answer
    assert "0.01" in answer  # the best rate of the formula
    mean = np.mean([reports.accuracy(0.01, 0.0, seed) for seed in range(3)])
    assert f"{mean:.3f}" in answer
    assert "Try next" in answer


def test_nothing_is_fetched(read):
    assert all(address.startswith("#") for address in read.addresses)
    assert "link" not in read.tags
    assert "img" not in read.tags


def test_every_run_is_in_the_table_and_in_the_charts(read):
    ids = {f"{rate:g}-{decay:g}-{seed}" for rate in reports.RATES for decay in reports.DECAYS for seed in range(3)}
    columns = {column["name"]: column for column in json.loads(read.scripts["trials"])["columns"]}
    assert set(columns["id"]["values"]) == ids
    effect = next(chart for chart in json.loads(read.scripts["charts"]) if "below" in json.dumps(chart))
    assert any({row.get("id") for row in rows} == ids for rows in effect["datasets"].values())


def test_names_cannot_end_a_script(tmp_path, read):
    assert reports.HOSTILE in read.text  # a class name, shown as text
    table = reports.write_table(tmp_path / "table.csv")
    command._run([f"--trials={table}", "--metric=cost", "--minimize"])
    hostile = Page((tmp_path / "table_report" / "report.html").read_text())
    assert hostile.tags.count("script") == read.tags.count("script")
    kinds = {column["name"]: column for column in json.loads(hostile.scripts["trials"])["columns"]}
    assert set(kinds["kind"]["levels"]) == {"plain", reports.HOSTILE}
    assert 'drop"<b>&' in hostile.text


def test_json_in_a_script_comes_back_whole():
    value = {"</script>": ["<!--", "a&b", "\u2028\u2029", "é", 1.5, None]}
    text = page.as_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_figures_are_files_of_their_own(study):
    pictures = {file.stem for file in (study[0] / "figures").glob("*.png")}
    assert pictures == {file.stem for file in (study[0] / "figures").glob("*.svg")}
    assert {"effect_learning_rate", "map_learning_rate_weight_decay", "curves", "divergence", "settings"} <= pictures
    with Image.open(study[0] / "figures" / "effect_learning_rate.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    svg = (study[0] / "figures" / "effect_learning_rate.svg").read_text()
    ElementTree.fromstring(svg)
    assert "var(--" not in svg


def test_a_running_study_is_refreshed_and_a_finished_one_is_not(tmp_path):
    workdir = reports.write_study(tmp_path / "running")
    report.write(workdir, refresh=7)
    assert '<meta http-equiv="refresh" content="7">' in (workdir / "report.html").read_text()
    assert not (workdir / "figures").exists()
    assert [file.name for file in workdir.iterdir() if file.suffix == ".new"] == []


def test_the_same_study_gives_the_same_page(study, tmp_path):
    report.write(study[0], refresh=1)
    first = (study[0] / "report.html").read_text()
    report.write(study[0], refresh=1)
    assert (study[0] / "report.html").read_text() == first


def test_terminal_lines(study):
    lines = terminal.lines(study[1], Path("runs/a/report.html"))
    text = "\n".join(lines)
    assert "Note: " not in text  # the first to go where ten lines are not enough
    assert all(len(line) <= 120 or line.startswith("  ") for line in lines)
    for begin in ("24 trials", "What mattered", "Use", "How sure", "Try next", "Report: runs/a/report.html"):
        assert begin in text


def test_provenance_tells_the_command_as_it_is_typed(study):
    assert "python -m finetune &#x27;--workdir=a b&#x27;" in provenance.section(study[1].trials)


def test_studies_are_paired_by_setting_and_seed(tmp_path):
    """24 trials, of which 3 diverge in each study; the second is better by 0.03 everywhere."""
    first = reports.write_study(tmp_path / "first")
    second = reports.write_study(tmp_path / "second", gain=0.03, name="r8", prefix="x")
    compared = comparison.compare([analyse(read_study(path)) for path in (first, second)])
    (pairs,) = compared.pairs
    assert (pairs.by, len(pairs.frame)) == ("setting and seed", 21)
    assert (pairs.mean, pairs.low, pairs.high) == pytest.approx((0.03, 0.03, 0.03), abs=1e-9)
    assert pairs.seeds == 3
    assert compared.differing == {"data.name": ("digits", "r8")}
    assert "second is better than first by +0.0300" in compared.sentences[1]


def test_comparison_is_a_page(tmp_path, capsys):
    paths = [str(reports.write_study(tmp_path / name, gain)) for name, gain in (("a", 0.0), ("b", 0.0))]
    command._run([*paths, f"--to={tmp_path / 'both'}"])
    assert "b and a have the same values over 21 pairs of runs with the same id" in capsys.readouterr().out
    compared = Page((tmp_path / "both" / "comparison.html").read_text())
    assert all(address.startswith("#") for address in compared.addresses)
    assert len(json.loads(compared.scripts["trials"])["columns"][0]["values"]) == 48


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "0 work directories"),
        (["no/such/directory"], "'no/such/directory'"),
        (["."], "trial"),
        ([".", "--trials=a.csv", "--metric=b"], "allowed: one of both"),
        (["--trials=a.csv"], "--metric is missing"),
        (["--trials=no-such.csv", "--metric=b"], "no-such.csv"),
        (["--metirc=b"], "metirc"),
        ([".", "--minimize"], "with --trials only"),
    ],
)
def test_wrong_input_is_one_line(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finetune.report", *arguments])
    assert command.main() == 2
    output = capsys.readouterr()
    assert re.fullmatch(r"error: .+\n", output.err)
    assert said in output.err
    assert output.out == ""


def test_a_directory_that_cannot_be_written_is_named(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file.*cannot be written"):
        command._run([str(study[0]), f"--to={tmp_path / 'file'}"])


def test_help_and_no_jax(tmp_path):
    workdir = reports.write_study(tmp_path / "study")
    code = (
        "import sys; from finetune import report; report.write(__import__('pathlib').Path(sys.argv[1]), 5);"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('jax', 'jaxlib', 'flax')))"
    )
    environment = dict(os.environ)
    done = subprocess.run([sys.executable, "-c", code, str(workdir)], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    helped = subprocess.run([sys.executable, "-m", "finetune.report", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0
    assert "--minimize" in helped.stdout
