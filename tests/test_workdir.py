"""The directory of a study: made, refused, measured."""

import tempfile
from pathlib import Path

import pytest

from finetune import workdir
from finetune.errors import UserError


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
