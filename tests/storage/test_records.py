"""Files of results: appended, read back after a crash, replaced in one step."""

import errno
import json
import math
import os
import zlib
from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.storage import records


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    assert records.read(file) == []
    records.append(file, [{"id": "a", "metrics": {"loss": 0.5}}, {"id": "b"}])
    records.append(file, [])
    records.append(file, ({"id": name} for name in "c"))
    assert records.read(file) == [{"id": "a", "metrics": {"loss": 0.5}}, {"id": "b"}, {"id": "c"}]
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a", "b", "c"]


def test_nothing_to_append_makes_no_file(tmp_path: Path) -> None:
    records.append(tmp_path / "trials.jsonl", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(tmp_path: Path, value: float) -> None:
    file = tmp_path / "trials.jsonl"
    records.append(file, [{"loss": value, "deep": {"list": [1.0, value], "pair": (value, 2)}}])
    row = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert row.pop("crc32")
    assert row == {"loss": None, "deep": {"list": [1.0, None], "pair": [None, 2]}}


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_line_cut_short_is_passed_over(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "trials.jsonl"
    records.append(file, [{"id": "a"}, {"id": "b"}])
    file.write_bytes(file.read_bytes()[:-1][:-cut])
    assert records.read(file) == [{"id": "a"}]


@pytest.mark.parametrize("cut", [0, 1, 5, 11])
def test_rows_appended_after_a_crash_are_whole(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "trials.jsonl"
    records.append(file, [{"id": "a"}, {"id": "b"}])
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) - cut])
    records.append(file, [{"id": "c"}])
    found = records.lines(file)
    assert [row["id"] for row in found.rows] == (["a", "b", "c"] if cut < 2 else ["a", "c"])
    assert found.damaged == (cut >= 2)


def test_only_the_process_that_writes_writes(tmp_path: Path) -> None:
    for name, writes in (("first", True), ("second", False)):
        (tmp_path / name).mkdir()
        recorder = records.Recorder(tmp_path / name, writes)
        recorder.append("curves.jsonl", [{"epoch": 1}])
        recorder.write("plan.json", {"trials": 1})
    assert records.read(tmp_path / "first" / "curves.jsonl") == [{"epoch": 1}]
    assert records.read_document(tmp_path / "first" / "plan.json") == {"trials": 1}
    assert list((tmp_path / "second").iterdir()) == []


TRIAL = {"id": "a", "hparams": {}, "status": "complete", "metrics": {}, "best": None, "steps": 1, "reason": None}


def test_trials_are_read_past_a_line_cut_short(tmp_path: Path) -> None:
    assert records.read_trials(tmp_path) == []
    records.append(tmp_path / "trials.jsonl", [TRIAL])
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"id": "b", "hpar')
    assert records.read_trials(tmp_path) == [TRIAL]


def test_the_checksum_is_that_of_the_row_in_canonical_json(tmp_path: Path) -> None:
    records.append(tmp_path / "a.jsonl", [{"b": 0.1, "a": "é"}])
    expected = zlib.crc32(rb'{"a": "\u00e9", "b": 0.1}')
    assert json.loads((tmp_path / "a.jsonl").read_text())["crc32"] == f"{expected:08x}"


@pytest.mark.parametrize("place", range(0, 60, 3))
def test_a_flipped_byte_is_never_read_as_a_value(tmp_path: Path, place: int) -> None:
    file = tmp_path / "trials.jsonl"
    rows = [{"id": "a", "loss": 0.25}, {"id": "b", "loss": 0.5}]
    records.append(file, rows)
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << place % 8
    file.write_bytes(bytes(content))
    found = records.lines(file)
    assert all(row in rows for row in found.rows)
    assert len(found.rows) == 2 or found.damaged


def test_repeated_rows_and_damaged_lines_are_dropped(tmp_path: Path) -> None:
    recorder = records.Recorder(tmp_path, writes=True)
    recorder.append("curves.jsonl", [{"id": name, "epoch": 1, "loss": loss} for name, loss in (("a", 1), ("b", 2))])
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"id": "c", "epoch": 1, "loss": 3, "crc32": "00000000"}\n')
    recorder.append("curves.jsonl", [{"id": "a", "epoch": 1, "loss": 4}])
    left, damaged = recorder.keep("curves.jsonl", lambda row: row["id"] != "b", lambda row: row["id"])
    assert (left, damaged) == ([{"id": "a", "epoch": 1, "loss": 4}], 1)
    assert records.read(tmp_path / "curves.jsonl") == left


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trials.jsonl"
    records.append(file, [{"id": "a"}])
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: records.append(file, [{"id": "b"}]), lambda: records.write(file, {"id": "c"})):
        with pytest.raises(
            UserError, match="trials.jsonl cannot be written .No space left on device., allowed: a disk"
        ):
            write()
        assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"]


@pytest.mark.parametrize("content", [b"[1, 2]\n", b"3\n", b'{"id": "a"}\n', b"\xff\xfe\n"])
def test_trials_that_are_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trials.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="trials.jsonl holds 1 damaged lines, allowed: .* starting the study") as error:
        records.read_trials(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe"])
def test_documents_that_are_damaged(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plan.json"
    assert records.read_document(file) == {}
    file.write_bytes(content)
    with pytest.raises(UserError, match="plan.json cannot be read .*, allowed: the file as a study wrote it"):
        records.read_document(file)


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    records.write(file, {"long": list(range(100))})
    records.write(file, {"loss": math.nan, "name": "Zoë"})
    assert json.loads(file.read_text(encoding="utf-8")).items() >= {"loss": None, "name": "Zoë"}.items()
    assert records.read_document(file) == {"loss": None, "name": "Zoë"}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    records.write(file, {"trials": 1})
    with pytest.raises(TypeError):
        records.write(file, {"trials": object()})
    assert records.read_document(file) == {"trials": 1}
