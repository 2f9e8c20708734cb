"""The comparison of arms in the page: sentences, and a table with a row for each arm at its own best."""

import math
from html import escape

from finetune.analysis.answer import Answer
from finetune.analysis.arms import Arm, Arms
from finetune.analysis.finding import number
from finetune.report import scale, tables

_UNKNOWN = "-"
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def heading(compared: Arms) -> str:
    """Returns the heading of the section."""
    return f"Each {compared.by.name} at its own best"


def place(answer: Answer, compared: Arms) -> str:
    """Returns the sentences and the table as HTML."""
    sentences = "".join(f"<p>{escape(line).replace(' %', '&nbsp;%')}</p>" for line in compared.sentences)
    metric = answer.trials.metric.replace("_", " ")
    heads = [compared.by.name, "best setting", f"{metric}, 95 %", "test", "behind the first, 95 %"]
    heads += ["trained", "seconds a trial", "memory a member"]
    rows = "".join(f"<tr>{tables.cells(_row(answer, arm), 'td')}</tr>" for arm in compared.arms)
    return (
        f'{sentences}<div class="scroll arms"><table><thead><tr>{tables.cells(heads, "th")}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(answer: Answer, arm: Arm) -> list[str]:
    form, best = scale.digits(answer.trials.frame["value"]), arm.setting
    costs = [_number(arm.trained_parameters), _seconds(arm.seconds), _bytes(arm.bytes)]
    if best is None:
        return [arm.value, "no trial came to a result", *[_UNKNOWN] * 3, *costs]
    ends = {name: f" ({end} tried)" for name, end in arm.edges}
    words = [f"{axis.name} {scale.label(axis, best.values[axis.name])}{ends.get(axis.name, '')}" for axis in arm.axes]
    interval = f" ({best.low:{form}} to {best.high:{form}})" if math.isfinite(best.low) else ""
    test = _test(best.test, best.test_half, form)
    return [arm.value, ", ".join(words) or "-", f"{best.mean:{form}}{interval}", test, _behind(arm), *costs]


def _test(test: float | None, half: float, form: str) -> str:
    if test is None:
        return _UNKNOWN
    return f"{test:{form}}" + (f" ± {half:{form}}" if math.isfinite(half) else "")


def _behind(arm: Arm) -> str:
    """Returns how far an arm lies behind the first, with its interval, and whether it may be the best all the same."""
    if not math.isfinite(arm.behind):
        return _UNKNOWN
    if arm.first:
        return "first"
    verdict = "may be as good" if arm.tied else "worse"
    return f"{number(arm.behind)} ({number(arm.low)} to {number(arm.high)}), {verdict}"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3g}"


def _bytes(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), (1.0, "bytes"))
    return f"{value / size:.3g} {unit}"
