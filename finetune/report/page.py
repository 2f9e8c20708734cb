"""report.html, which needs no network: the answer in sentences, then charts, all runs, and where they come from."""

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import finetune
from finetune.analysis.answer import Answer
from finetune.analysis.finding import NOTE, WARNING, count, metric_words, rounded, span
from finetune.analysis.headline import COMMAND, RUN, TIED, USE, Line
from finetune.analysis.setting import Setting
from finetune.report import arm_table, interpretation, library, provenance, scale, tables, theme
from finetune.report.figure import Figure

_HERE = Path(__file__).parent
_SECTIONS = (  # of figures: name, heading, what to know before reading
    ("arms", "Arm by arm", ""),
    ("effects", "What each hyperparameter does", ""),
    ("shares", "What mattered", "How much of what differs between runs each hyperparameter explains."),
    ("certainty", "How sure", "The best settings side by side, and what more trials would have brought."),
    ("interactions", "What depends on what", "Where the best value of one hyperparameter depends on another."),
    ("training", "How runs trained", ""),
    ("cost", "Cost", "What quality costs."),
    ("runs", "All runs", "Click a point of any chart to find its run in the table."),
)
_EXTRA_FIRST = ("effects", "arms")  # sections that begin with what is beside the charts
_ELSEWHERE = (RUN, COMMAND, TIED, WARNING, NOTE)  # lines of the headline that have a place of their own
_LOST, _BELOW = "diverged or failed", "a run outside of the chart"
_KEY = (  # what the marks of the effect charts are: SVG, words
    ('<path d="M0 7h26" stroke="var(--accent)" stroke-width="2.4"/>', "best over the other hyperparameters, 95 % band"),
    ('<path d="M0 7h26" stroke="var(--muted)" stroke-width="1.6" stroke-dasharray="4 3"/>', "mean over the others"),
    ('<circle cx="13" cy="7" r="3" fill="var(--run)"/>', "a run"),
    ('<circle cx="13" cy="7" r="5.4" fill="none" stroke="var(--best)" stroke-width="2.4"/>', "recommended"),
    ('<path d="M13 2v10M8 7h10" stroke="var(--bad)" stroke-width="3.4"/>', _LOST),
    ('<path d="M9 4h8l-4 7z" fill="var(--run)"/>', _BELOW),
)


def render(answer: Answer, figures: Sequence[Figure], refresh: int | None = None) -> str:
    """Returns the page; with `refresh`, a browser that shows it reads it again every so many seconds."""
    body = [_answer(answer), _navigation(figures)]
    for name, heading, words in _SECTIONS:
        shown = [(index, each) for index, each in enumerate(figures) if each.section == name]
        extra = _runs(answer) if name == "runs" else _keys(answer) if name == "effects" and shown else ""
        if name == "arms" and answer.arms is not None:
            heading, extra = arm_table.heading(answer.arms), arm_table.place(answer, answer.arms)
        if shown or extra:
            body.append(_section(name, heading, words, shown, extra))
    body.append(provenance.section(answer.trials))
    live = f'<span class="live">Still training; this page follows every {refresh} s.</span> · ' if refresh else ""
    return fill(
        title=study_name(answer.trials.source),
        about=live + text(_about(answer)),
        body="\n".join(body),
        figures=figures,
        runs=tables.columns(answer),
        refresh=refresh,
    )


def fill(
    *, title: str, about: str, body: str, figures: Sequence[Figure], runs: dict[str, Any], refresh: int | None = None
) -> str:
    """Returns a page of this frame; `about` and `body` are HTML."""
    return Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=about,
        body=body,
        refresh=f'<meta http-equiv="refresh" content="{refresh:d}">' if refresh else "",
        style=theme.variables() + (_HERE / "page.css").read_text(encoding="utf-8"),
        charts=as_json([figure.specification() for figure in figures]),
        trials=as_json(runs),
        library=library.script(),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        version=f"finetune {finetune.__version__}.",
    )


def as_json(value: Any) -> str:
    """Returns JSON that is safe inside <script>: no text in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def study_name(source: str) -> str:
    """Returns the name of a study or table, without the directories it lies in."""
    return Path(source).resolve().name or source


def _about(answer: Answer) -> str:
    done, planned = len(answer.trials.frame), (answer.trials.provenance.get("plan") or {}).get("trials", 0)
    run = answer.lines[0].text
    return f"{done:,} of {planned:,} trials have ended. {run}" if planned > done else run


def _answer(answer: Answer) -> str:
    first = f'<div class="answer"><div class="sentences">{_sentences(answer)}</div>{_card(answer)}</div>'
    return (
        f'<section id="answer">{first}{_next(answer)}{interpretation.block(answer.trials)}{_findings(answer)}</section>'
    )


def _sentences(answer: Answer) -> str:
    """Returns the headline, the setting to use first; what has a place of its own on the page is left out."""
    lines = [line for line in answer.lines if line.kind not in _ELSEWHERE]
    lines.sort(key=lambda line: line.kind != USE)
    return "".join(f"<p>{_sentence(line)}</p>" for line in lines)


def _sentence(line: Line) -> str:
    """Returns a line as HTML, its label in bold."""
    return f"<b>{escape(line.label)}</b>{line.sign} {text(line.text)}"


def text(words: str) -> str:
    """Returns words as HTML; a number and its percent sign stay on one line."""
    return escape(words).replace(" %", "\u00a0%")


def _card(answer: Answer) -> str:
    trials, advice = answer.trials, answer.recommendation
    best = advice.choice
    if best is None:
        return '<aside class="card"><h2>Use</h2>No setting can be recommended on this evidence.</aside>'
    axes = {axis.name: axis for axis in trials.axes}
    values = [(name, escape(scale.label(axes[name], value))) for name, value in best.values.items() if name in axes]
    title = "Use" if advice.confident else "Use, for now" if advice.best else "Use any, such as"
    rows = _quality(answer, best)
    if advice.tied:
        rows.append(("may be as good", count(len(advice.tied) - 1, "other setting")))
    for name, setting in (("cheapest of these", advice.cheapest), ("most forgiving", advice.robust)):
        if setting is not None and setting.values != best.values:
            rows.append((name, escape(_differing(answer, setting, best))))
    return f'<aside class="card"><h2>{title}</h2>{definitions(values)}{definitions(rows)}</aside>'


def _quality(answer: Answer, best: Setting) -> list[tuple[str, str]]:
    interval = f"<small>95 %: {span(best.low, best.high)}</small>" if math.isfinite(best.low) else ""
    rows = [(metric_words(answer.trials), f"{rounded(best.mean, best.high - best.low)}{interval}")]
    if best.test is not None and math.isfinite(best.test):
        half = f" ± {rounded(best.test_half, best.test_half)}" if math.isfinite(best.test_half) else ""
        rows.append(("on the test split", f"{rounded(best.test, best.test_half)}{half}"))
    failed = [("failed runs", f"{best.lost} of {best.lost + best.seeds}")] if best.lost else []
    return [*rows, ("seeds", str(best.seeds)), *failed]


def _differing(answer: Answer, setting: Setting, best: Setting) -> str:
    """Returns the values of a setting that are not those of the best."""
    axes = {axis.name: axis for axis in answer.trials.axes}
    return ", ".join(
        f"{name} {scale.label(axes[name], value)}"
        for name, value in setting.values.items()
        if name in axes and best.values.get(name) != value
    )


def definitions(rows: Sequence[tuple[str, str]], style: str = "") -> str:
    """Returns names (text) and values (HTML) as a list."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="{style}">{items}</dl>' if rows else ""


def command(line: str) -> str:
    """Returns a command with a button that copies it; it is broken between words only."""
    button = f'<button type="button" data-copy="{escape(line)}">copy</button>'
    words = " ".join(f"<span>{escape(word)}</span>" for word in line.split(" "))
    return f'<div class="command"><pre>{words}</pre>{button}</div>'


def _next(answer: Answer) -> str:
    advice = answer.recommendation
    return f'<div class="next">{command(advice.next_command)}</div>' if advice.next_command else ""


def _findings(answer: Answer) -> str:
    ordered = sorted(answer.findings, key=lambda each: each.severity != WARNING)
    items = "".join(f"<li>{_sentence(line)}</li>" for line in answer.lines if line.kind == TIED)
    items += "".join(f'<li class="{escape(each.severity)}">{text(each.sentence)}</li>' for each in ordered)
    return f'<div class="findings"><h2>What to know about this study</h2><ul>{items}</ul></div>' if items else ""


def _navigation(figures: Sequence[Figure]) -> str:
    known = {figure.section for figure in figures} | {"runs"}
    links = [("answer", "Answer"), *((name, heading) for name, heading, _ in _SECTIONS if name in known)]
    links.append(("provenance", "Where this comes from"))
    items = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading in links)
    return f"<nav><ul>{items}</ul></nav>"


def _section(name: str, heading: str, words: str, figures: Sequence[tuple[int, Figure]], extra: str) -> str:
    parts = [f'<section id="{name}"><h2>{escape(heading)}</h2>']
    if name in _EXTRA_FIRST:
        parts.append(extra)
    elif words:
        parts.append(f"<p>{escape(words)}</p>")
    columns = "figures" if len(figures) % 3 == 0 else "figures two"
    drawn = "".join(figure_place(index, each) for index, each in figures)
    place = f'<div class="{columns}">{drawn}</div>' if drawn else ""
    return "".join([*parts, place, "" if name in _EXTRA_FIRST else extra, "</section>"])


def figure_place(index: int, figure: Figure) -> str:
    """Returns the place of chart number `index`, with its message."""
    note = f"<p>{escape(figure.note)}</p>" if figure.note else ""
    caption = f"<figcaption><h3>{escape(figure.title)}</h3>{note}</figcaption>"
    wide = ' class="wide"' if figure.wide else ""
    place = f'<div class="chart" data-chart="{index}" role="img" aria-label="{escape(figure.title)}"></div>'
    return f"<figure{wide}>{caption}{place}</figure>"


def _keys(answer: Answer) -> str:
    """Returns what the marks of the effect charts mean, those that occur."""
    values = answer.trials.frame["value"]
    low, high = scale.visible(values, answer.trials.maximize)
    occurs = {_LOST: values.isna().any(), _BELOW: ((values < low) | (values > high)).any()}
    items = "".join(
        f'<li><svg width="26" height="14" aria-hidden="true">{mark}</svg>{escape(words)}</li>'
        for mark, words in _KEY
        if occurs.get(words, True)
    )
    return f'<ul class="key">{items}</ul>'


def _runs(answer: Answer) -> str:
    return tables.place(tables.columns(answer))
