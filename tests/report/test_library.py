"""The script that draws a page's charts: bundled once, kept whole, and made again where it cannot be kept."""

from importlib.metadata import version

import pytest
import vl_convert

from finetune.report import library


@pytest.fixture
def bundles(monkeypatch, tmp_path):
    """The calls of the bundler, which is replaced; the cache lies in `tmp_path`."""
    calls = []
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda *_, **__: calls.append(1) or "é = '</script>'")
    library.script.cache_clear()
    yield calls
    library.script.cache_clear()


def test_a_script_is_bundled_once_for_all_processes(bundles, tmp_path):
    first = library.script()
    library.script.cache_clear()  # as another process
    assert library.script() == first == "é = '<\\/script>'"  # what ends the element is escaped
    assert len(bundles) == 1
    (kept,) = (tmp_path / "cache").iterdir()  # and nothing unfinished lies beside it
    assert kept.name == f"vega-{version('vl-convert-python')}-{vl_convert.get_vegalite_versions()[-1]}.js"


def test_a_cache_that_cannot_be_written_costs_only_time(bundles, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert library.script() == "é = '<\\/script>'"
    assert len(bundles) == 1
