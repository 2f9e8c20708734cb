"""Reads the work directory of a study of ours as a table: results, curves, and what each trial cost."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from finetune.analysis.table.design import ADAPTIVE, RANDOM, Design
from finetune.analysis.table.stops import Stops, stops
from finetune.errors import UserError
from finetune.storage import records

_ENDED = (records.COMPLETE, records.DIVERGED, records.FAILED, records.STOPPED)


class Study(NamedTuple):
    """frame has one row a trial that has ended: id, hyperparameters, status, metrics, best_epoch, costs.

    The cost of a trial that started from another one's weights has that one's in it.
    """

    frame: pd.DataFrame
    hyperparameters: list[str]
    curves: pd.DataFrame  # id, epoch, step, train_loss, val_...; one row for each (id, epoch)
    provenance: dict[str, Any]  # of config.json, and plan.json, summary.json and search.json under these names
    stops: Stops | None = None  # of a search that stopped trials on their way

    @property
    def _search(self) -> dict[str, Any]:
        """What search.json says, empty where there are settings that no search has chosen."""
        search: dict[str, Any] = self.provenance["search"]
        settings = self.frame[[name for name in self.hyperparameters if name != "seed"]].drop_duplicates()
        return search if search and len(settings) <= search["trials"] else {}

    @property
    def design(self) -> Design | None:
        """How a search chose the settings; None of a study that was none."""
        search = self._search
        if not search:
            return None
        why = f"{search['trials']} settings by {search['method']} in {search['waves']} waves"
        if self.stops:
            return Design(ADAPTIVE, f"{why}, of which those came to their end that had been the best on the way")
        return Design(ADAPTIVE if search["method"] == "tpe" and search["waves"] > 1 else RANDOM, why)

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """The seeds by which a search has chosen its finalists; empty where there are none."""
        search = self._search
        return tuple(range(search["seeds"])) if search.get("finalists") else ()


def read(workdir: Path) -> Study:
    """Returns what a work directory holds; raises UserError if no trial in it has ended."""
    config = records.read_document(workdir / "config.json")
    others = {name: records.read_document(workdir / f"{name}.json") for name in ("plan", "summary", "search")}
    if others["search"].get("method") == "range":
        raise UserError(f"{str(workdir)!r} holds a range test of learning rates, which has no answer, allowed: a study "
                        "or a search; the test's last lines say where to search")  # fmt: skip
    rows = [row for row in records.read_trials(workdir) if row["status"] in _ENDED]
    if not rows:
        raise UserError(f"{str(workdir)!r} holds no trial that has ended, allowed: the work directory of a study")
    frame = pd.DataFrame(
        {
            "id": row["id"],
            **row["hparams"],
            "status": row["status"],
            **row["metrics"],
            "best_epoch": row["best"]["epoch"] if row["best"] else None,
            **_cost(row["hparams"], others["plan"]),
        }
        for row in rows
    )
    for name in ("seconds", "flops"):
        if name in frame:  # trials of a group differ in cost as they do in epochs
            frame[name] *= frame["epochs"] / frame.groupby(name)["epochs"].transform("mean")
            frame[name] += _before(rows, dict(zip(frame["id"], frame[name], strict=True)))
    names = list(dict.fromkeys(name for row in rows for name in row["hparams"]))
    return Study(frame, names, curves(workdir, set(frame["id"])), config | others, stops(rows))


def curves(workdir: Path, ids: set[str]) -> pd.DataFrame:
    """Returns curves.jsonl: one row for each (id, epoch) of `ids`, the last that was written."""
    rows = (row for row in records.stream(workdir / "curves.jsonl") if row.get("id") in ids)
    names = list(first) if (first := next(rows, None)) else []
    values = [tuple(map(row.get, names)) for row in itertools.chain([first] if first else [], rows)]
    curves = pd.DataFrame(values, columns=names)  # from tuples: a study may have a million rows
    return curves.drop_duplicates(["id", "epoch"], keep="last", ignore_index=True) if len(curves) else curves


def _cost(hparams: dict[str, Any], plan: dict[str, Any]) -> dict[str, float]:
    """Returns the mean seconds, flops and bytes of a trial of the planned group that fits these hyperparameters."""
    groups = [
        group for group in plan.get("groups", []) if group.get("trials") and _belongs(hparams, group["signature"])
    ]
    if not groups:
        return {}
    group = max(groups, key=lambda each: each["signature"].get("micro_batch", 0))
    shares = {"seconds": group["trials"], "flops": group["trials"], "bytes": group["chunk"]}
    costs = {name: group[name] / members for name, members in shares.items() if group.get(name)}
    return costs | _trained(hparams, group)


def _trained(hparams: dict[str, Any], group: dict[str, Any]) -> dict[str, float]:
    """Returns how many parameters a trial trains: of a group's adapters those of its own rank."""
    if "trained_parameters" not in group:
        return {}
    rank, largest = hparams.get("lora_rank"), group.get("adapter_rank")
    idle = group["adapter_parameters"] * (1 - rank / largest) if rank and largest else 0
    return {"trained_parameters": group["trained_parameters"] - idle}


def _before(rows: list[dict[str, Any]], spent_on: dict[str, float]) -> list[float]:
    """Returns what was spent on the trials that each one's weights come from, not on those that were not chosen."""
    parents = {row["id"]: row["parent"] for row in rows if row.get("parent")}
    spent = []
    for row in rows:
        total, identity = 0.0, row["id"]
        while identity := parents.get(identity):
            total += spent_on.get(identity, 0.0)
        spent.append(total)
    return spent


def _belongs(hparams: dict[str, Any], signature: dict[str, Any]) -> bool:
    same = all(hparams[name] == value for name, value in signature.items() if name in hparams and name != "dropout")
    return same and hparams.get("batch_size", 0) % signature.get("micro_batch", 1) == 0
