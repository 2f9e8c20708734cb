"""Files of ours: whole or as they were, never written through a link, on any system."""

import os
from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.storage import files


@pytest.mark.parametrize("link", ["file", "file.new"])
def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path: Path, link: str) -> None:
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / link).symlink_to(tmp_path / "victim")
    files.replace(tmp_path / "file", "ours")
    assert (tmp_path / "victim").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "victim"]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_appended_through_a_link(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "victim").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="link"), files.open_to_append(tmp_path / "link") as file:
        file.write(b"ours")
    assert [path.read_text() for path in tmp_path.glob("victim")] == ["theirs"] * there
    assert not files.is_own(tmp_path / "link")


def test_what_may_be_written_to(tmp_path: Path) -> None:
    with files.open_to_append(tmp_path / "file") as file:
        file.write(b"ours")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = {name: files.is_own(tmp_path / name) for name in ("file", "absent", "directory", "pipe")}
    assert found == {"file": True, "absent": True, "directory": False, "pipe": False}


@pytest.mark.parametrize("size", [0, 5, files._BLOCK_BYTES + 1])
def test_room_is_taken_where_the_system_has_no_call_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS
    with (tmp_path / "file").open("xb") as file:
        files.allocate(file, size)
    assert (tmp_path / "file").stat().st_size == size


def test_a_home_directory_that_is_not_known() -> None:
    assert files.expanded("data/r8.csv") == Path("data/r8.csv")
    with pytest.raises(UserError, match="'~no_such_user/r8.csv' begins with a home directory that is not known, allow"):
        files.expanded("~no_such_user/r8.csv")
