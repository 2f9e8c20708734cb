"""Vega, Vega-Lite and Vega-Embed, which draw the charts of a page: one script, bundled once for a version of them."""

import contextlib
import functools
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import vl_convert

from finetune.assets import cache


def vega_lite_version() -> str:
    """Returns the newest Vega-Lite that vl-convert draws with."""
    return str(vl_convert.get_vegalite_versions()[-1])


@functools.cache
def script() -> str:
    """Returns the script; bundling it takes a second, so it is kept in the user's cache if that can be written."""
    file = cache() / f"vega-{version('vl-convert-python')}-{vega_lite_version()}.js"
    with contextlib.suppress(OSError, UnicodeError):
        return file.read_text(encoding="utf-8")
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vega_lite_version())
    text = text.replace("</script", "<\\/script")
    with contextlib.suppress(OSError):
        _keep(file, text)
    return text


def _keep(file: Path, text: str) -> None:
    """Writes a file in one step, so that no other process reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".vega-")
    try:
        with open(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)
