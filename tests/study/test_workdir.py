"""The directory of a study: made, refused, measured."""

import tempfile
from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.study import workdir


def test_a_workdir_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    workdir.prepare(path)
    workdir.prepare(path)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "file/far/below"])
def test_a_workdir_that_is_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir is '.*file.*', which is a file, allowed: a directory"):
        workdir.prepare(tmp_path / name)


@pytest.mark.parametrize("owner, method", [(Path, "mkdir"), (tempfile, "TemporaryFile")])
def test_a_workdir_that_cannot_be_written(
    tmp_path: Path, owner: object, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(owner, method, refuse)
    with pytest.raises(UserError, match="--workdir is '.*': Permission denied, allowed: a writable directory"):
        workdir.prepare(tmp_path / "runs")


def test_the_bytes_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "below" / "b").write_bytes(b"12345")
    assert workdir.size_bytes(tmp_path) == 8


@pytest.mark.parametrize("name", ["lock", "trials.jsonl", "curves.jsonl"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_place_of_a_file_that_is_written_to(tmp_path: Path, name: str, there: bool) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_text("theirs")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"study/{name} is no file of a study, allowed: a plain file, not a link"):
        workdir.prepare(tmp_path / "study")
    assert [path.read_text() for path in tmp_path.glob("victim")] == ["theirs"] * there


def test_a_link_with_the_name_of_the_old_probe(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / ".writable").symlink_to(tmp_path / "victim")
    workdir.prepare(tmp_path)
    assert (tmp_path / "victim").read_text() == "theirs"
    assert (tmp_path / ".writable").is_symlink()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_checkpoints_that_are_no_directory(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "checkpoints").write_text("")
    else:
        (tmp_path / "checkpoints").symlink_to(tmp_path / "absent")
    with pytest.raises(UserError, match="checkpoints is no directory, allowed: one, as a study left it, or none"):
        workdir.prepare(tmp_path)


def test_checkpoints_on_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "checkpoints").symlink_to(tmp_path / "disk")
    workdir.prepare(tmp_path / "study")
