"""The card of an exported trial: README.md, with what it is, how good over seeds, and how it was made."""

import html
import importlib.resources
import json
import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from finetune.models.weights import exported
from finetune.models.weights.families import FAMILIES
from finetune.storage import records
from finetune.study import user_task
from finetune.trials.command import as_typed

_SEEDS = ("seed", "data_seed")  # chance, not choice
_CONFIDENCE = 0.95
# Pooling in PyTorch, where no class of transformers has it.
_POOLED_TOKENS = {
    "mean": "(hidden * mask).sum(1) / mask.sum(1)",
    "first": "hidden[:, 0]",
    "max": "hidden.masked_fill(mask == 0, -torch.inf).amax(1)",
}
_SCALED = "scaled to -1 to 1"
_POOLED_PATCHES = {"mean": "mean(1)", "first": "select(1, 0)", "max": "amax(1)"}


class _Told(NamedTuple):
    """What a card says of a kind of task: what the model is, what predict writes, what the head gives, in PyTorch."""

    what: str
    told: str
    outputs: str
    shown: str


_TEXTS = '["the first text", "the second"]'
_PAIRS = '[("the first text", "what stands beside it")]'
_EACH = "the probability of each class"
_TOLD = {
    "classification": _Told(
        "A classifier with {count} classes: {classes}.",
        f"the most probable class and {_EACH}",
        "logits",
        "[encoder.config.id2label[index] for index in outputs.softmax(-1).argmax(-1).tolist()]",
    ),
    "multilabel": _Told(
        "A classifier of texts or images that may have several of {count} classes, or none: {classes}.",
        f"all classes that are more probable than not and {_EACH}",
        "logits",
        "[[encoder.config.id2label[index] for index in (row > 0).nonzero()[:, 0].tolist()] for row in outputs]",
    ),
    "tokens": _Told(
        "A tagger of words with {count} tags: {classes}.",
        f"a row for each word, with its most probable tag and {_EACH},",
        "",
        "",
    ),
    "choice": _Told(
        "It says which of {count} texts goes with a first one: {classes}.",
        f"the most probable choice and {_EACH[:-5]}choice",
        "scores",
        "outputs[:, 0].argmax().item()",
    ),
    "question_answering": _Told(
        "It answers a question by words of a text.",
        "the words that answer a question and how probable they are",
        "",
        "",
    ),
    "contrastive": _Told(
        "An encoder of texts: those that belong together are near each other.",
        "the cosine of two texts",
        "embeddings",
        "torch.nn.functional.cosine_similarity(outputs[0], outputs[1], dim=0).item()",
    ),
    "regression": _Told("A regression: it predicts a number.", "the value", "values", "outputs[:, 0].tolist()"),
}
_MARKS = re.compile(r"([\\`*\[\]|#])")


class Repeats(NamedTuple):
    """The trials of one setting, which differ by their seeds alone.

    trials: how many; lost: how many of them have no result; metrics: name -> value of each that has one.
    order: what a better setting has more of: first none lost, then the mean of the value chosen on.
    rank, ties, settings: place of the setting among all by this order, how many share it, and how many there are.
    """

    trials: int
    lost: int
    metrics: dict[str, list[float]]
    order: tuple[bool, float]
    rank: int
    ties: int
    settings: int

    @classmethod
    def of(cls, row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> "Repeats":
        """Returns the repeats of a trial among all rows of its study."""
        settings: dict[str, list[dict[str, Any]]] = {}
        for each in rows:
            settings.setdefault(_setting(each), []).append(each)
        own = settings[_setting(row)]
        orders = [_order(group) for group in settings.values()]
        done = [each["metrics"] for each in own if _value(each) is not None]
        names = sorted({name for metrics in done for name in metrics if metrics[name] is not None})
        return cls(
            trials=len(own),
            lost=len(own) - len(done),
            metrics={name: [metrics[name] for metrics in done if metrics.get(name) is not None] for name in names},
            order=_order(own),
            rank=1 + sum(order > _order(own) for order in orders),
            ties=orders.count(_order(own)) - 1,
            settings=len(orders),
        )

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Returns mean, ends of the 95 % interval of the mean, and number of seeds, of every metric."""
        return {name: _interval(values) for name, values in self.metrics.items()}

    def sentence(self) -> str:
        """Says how good the setting is among all, and over how many seeds."""
        ties = f", together with {self.ties} more," if self.ties else ""
        over = f"over {self.trials} seeds" if self.trials > 1 else "of one seed"
        lost = f"; {self.lost} of them have no result" if self.lost else ""
        return f"its setting ranks {self.rank} of {self.settings}{ties} by the mean {over}{lost}"


def _setting(row: dict[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in row["hparams"].items() if name not in _SEEDS))


def _value(row: dict[str, Any]) -> float | None:
    return row["best"]["value"] if row["best"] and row["status"] == records.COMPLETE else None


def _order(group: Sequence[dict[str, Any]]) -> tuple[bool, float]:
    values = [value for each in group if (value := _value(each)) is not None]
    return len(values) == len(group), float(np.mean(values)) if values else -np.inf


def _interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Returns the mean with its two-sided Student t-interval; none from fewer than two values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": len(values)}
    reach = stats.t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": mean, "low": mean - float(reach), "high": mean + float(reach), "seeds": len(values)}


def write_card(file: Path, document: dict[str, Any], row: dict[str, Any], repeats: Repeats) -> None:
    """Writes the card; document: config.json of the study, row: of trials.jsonl."""
    model, data = document["config"]["model"], document["config"]["data"]
    source = model["pretrained"] or "random weights"
    text = _template("card.md").format(
        title=f"{_plain(Path(source).name)} fine-tuned on {_plain(Path(data['name']).name)}",
        what=_TOLD[data["task"]].what.format(
            classes=", ".join(map(_plain, document["classes"])), count=len(document["classes"])
        ),
        usage=_usage(document, file.parent),
        results=_table(
            ("metric", "this trial", "mean over seeds", "95 % interval", "seeds"),
            [_metric_row(name, row["metrics"].get(name), each) for name, each in repeats.summary().items()],
        ),
        ranking=_plain(repeats.sentence()),
        epoch=row["best"]["epoch"],
        metric=_plain(document["config"]["evaluation"]["metric"]),
        hyperparameters=_table(("hyperparameter", "value"), list(row["hparams"].items())),
        provenance=_table(("", ""), _provenance(document, row)),
        command=textwrap.indent(shlex.join(as_typed(document["command"])), "    "),
    )
    file.write_text(text + "\n", encoding="utf-8")


def _usage(document: dict[str, Any], directory: Path) -> str:
    """Returns how the model in a directory is run."""
    if document["architecture"]["model"] == user_task.ARCHITECTURE:
        return _template("card_own.md").format(told=_TOLD[document["config"]["data"]["task"]].told)
    name = exported.class_of(document["architecture"], document["config"], document["classes"])
    data = document["config"]["data"]
    told, how = _TOLD[data["task"]], document["config"]["model"]["pooling"]
    if not exported.is_known_to_transformers(document["architecture"]):
        rest = "The names of the parameters in `model.safetensors` are finetune's own."
        return _template("card_image.md").format(told=told.told, rest=rest)
    if FAMILIES[document["architecture"]["model"]].images:
        return _usage_of_images(document, directory, name)
    if data["task"] == "question_answering":
        return _template("card_answers.md").format(told=told.told)
    if data["task"] == "tokens":
        usage = _template("card_tokens.md").format(told=told.told)
        return usage if name else usage.partition(" With transformers:")[0]
    template = _template("card_text_class.md" if name else "card_text.md")
    family = FAMILIES[document["architecture"]["model"]]
    others = "; a study with `--config.model.pooling=first` exports what they run" if family.head else ""
    pooled = {
        "files": "`.csv`, `.tsv` or `.jsonl`" if data.get("text_columns") else "`.csv`, `.tsv`, `.jsonl` or `.txt`",
        "texts": _PAIRS if data.get("text_columns") and data["task"] != "contrastive" else _TEXTS,
        "run": "[dict(text=a, text_pair=b) for a, b in texts]" if data.get("text_columns") else "texts",
        "where": "first token" if how == "first" else f"{how} over tokens",
        "pooled": _POOLED_TOKENS[how],
        "without": ", add_pooling_layer=False" if family.pools else "",
        "instead": "" if how == "first" else others,
    }
    return template.format(
        max_length=data["max_length"], told=told.told, outputs=told.outputs, shown=told.shown, **pooled
    )


def _usage_of_images(document: dict[str, Any], directory: Path, name: str | None) -> str:
    family, how = FAMILIES[document["architecture"]["model"]], document["config"]["model"]["pooling"]
    told = _TOLD[document["config"]["data"]["task"]]
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    image = document.get("inputs", {}).get("image", {})  # an earlier version says nothing of them
    rows, columns = image["shape"][:2] if image else settings["image_size"]
    has_own = family.images and not family.image_head and how == family.poolings[0]
    parts = {
        "shape": [1, settings["num_channels"], rows, columns],
        "scaled": "prepared as `preprocessor_config.json` says" if "mean" in document["architecture"] else _SCALED,
        "shown": told.shown,
        "where": f"{how} over tokens" if not has_own else "pooled output",
        "instead": "" if has_own else "; a study with `--config.model.pooling=first` exports what they run",
        "without": ", add_pooling_layer=False" if family.pools else "",
        "pooled": "pooler_output" if has_own else f"last_hidden_state.{_POOLED_PATCHES[how]}",
    }
    rest = _template("card_image_class.md" if name else "card_image_mean.md").format(**parts)
    return _template("card_image.md").format(told=told.told, rest=rest)


def _template(name: str) -> str:
    return importlib.resources.files("finetune.export").joinpath(name).read_text(encoding="utf-8").strip("\n")


def _metric_row(name: str, own: float | None, summary: dict[str, Any]) -> tuple[str, ...]:
    interval = "-" if summary["low"] is None else f"{summary['low']:.4f} to {summary['high']:.4f}"
    return name, "-" if own is None else f"{own:.4f}", f"{summary['mean']:.4f}", interval, str(summary["seeds"])


def _provenance(document: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, Any]]:
    description = document["description"]
    return [
        ("trial", row["id"]),
        ("data", document["config"]["data"]["name"]),
        ("sha256 of the encoded data", description["data"]),
        ("weights before training", _weights(document)),
        ("sha256 of them", description["weights"] or "-"),
        *document.get("versions", {}).items(),
    ]


def _weights(document: dict[str, Any]) -> str:
    """Returns what the weights before training were."""
    return document["config"]["model"]["pretrained"] or (
        "the task's" if document["description"]["weights"] else "random"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(value: object) -> str:
    """Returns a value as Markdown that shows it as it is: on one line, with no markup and no HTML of its own."""
    return _MARKS.sub(r"\\\1", html.escape(" ".join(str(value).split()), quote=False))
