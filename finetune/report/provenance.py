"""Where a report comes from: the command, versions, hashes, what was held fixed, and what was passed over."""

import json
import shlex
from html import escape
from typing import Any

from finetune.analysis.table.trials import Trials
from finetune.trials.command import as_typed


def section(trials: Trials) -> str:
    """Returns the section of the page; parts that are not known are left out."""
    known = trials.provenance
    description = known.get("description") or {}
    seconds = (known.get("summary") or {}).get("seconds") or {}
    facts = [
        ("source", trials.source),
        ("command", shlex.join(as_typed(known.get("command") or ()))),
        ("devices", ", ".join(map(str, known.get("devices", ())))),
        ("versions", _pairs(known.get("versions", {}))),
        ("data (SHA-256)", str(description.get("data") or "")),
        ("weights (SHA-256)", str(description.get("weights") or "")),
        ("study", str(known.get("fingerprint") or "")),
        ("classes", ", ".join(map(str, known.get("classes") or ()))),
        ("seconds", _pairs({name: f"{took:.1f}" for name, took in seconds.items()})),
        ("held fixed", _pairs(trials.fixed)),
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    notes = "".join(f"<li>{escape(note)}</li>" for note in trials.notes)
    notes = f"<h3>Notes on the data</h3><ul>{notes}</ul>" if notes else ""
    documents = "".join(_document(name, known.get(name)) for name in ("config", "plan", "summary"))
    return (
        '<section id="provenance"><h2>Where this comes from</h2>'
        f'<dl class="facts">{items}</dl>{notes}{documents}</section>'
    )


def _pairs(values: dict[str, Any]) -> str:
    return " · ".join(f"{name} {value}" for name, value in values.items())


def _document(name: str, document: dict[str, Any] | None) -> str:
    if not document:
        return ""
    text = escape(json.dumps(document, indent=2, default=str))
    return f"<details><summary>{name}.json</summary><pre>{text}</pre></details>"
