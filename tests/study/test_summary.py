"""What a study has come to."""

import sys
from types import SimpleNamespace

import pytest

from finetune.study import summary


@pytest.mark.parametrize("platform, said, expected", [("linux", 2000, 2_048_000), ("darwin", 2_048_000, 2_048_000)])
def test_peak_memory_in_bytes(platform, said, expected, monkeypatch):
    """getrusage(2): kilobytes on Linux, bytes on macOS."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(summary.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=said))
    assert summary.peak_process_bytes() == expected
