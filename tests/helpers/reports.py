"""Studies written by hand, whose best setting and effects are known, and tables with names that try to break a page."""

from pathlib import Path

import numpy as np

from finetune.storage import records

RATES, DECAYS = (1e-4, 1e-3, 1e-2, 1e-1), (0.0, 0.1)
HOSTILE = "</script><script>document.title='broken'</script>"


def accuracy(rate: float, decay: float, seed: int, gain: float = 0.0) -> float | None:
    """Returns the accuracy of a trial: best at rate 0.01; the largest rate with decay diverges."""
    if rate == max(RATES) and decay:
        return None
    return 0.9 + gain - 0.05 * (np.log10(rate) + 2) ** 2 + 0.002 * seed + 0.0007 * ((7 * seed + int(9 * decay)) % 3)


def write_study(workdir: Path, gain: float = 0.0, name: str = "digits", prefix: str = "") -> Path:
    """Writes the files of a study of 24 trials, rate x decay x 3 seeds, with 4 epochs each."""
    workdir.mkdir(parents=True, exist_ok=True)
    trials, curves = [], []
    for rate in RATES:
        for decay in DECAYS:
            for seed in range(3):
                value = accuracy(rate, decay, seed, gain)
                identity = f"{prefix}{rate:g}-{decay:g}-{seed}"
                trials.append(_trial(identity, rate, decay, seed, value))
                curves += [_epoch(identity, epoch, value) for epoch in range(1, 5)]
    config = {"data": {"name": name}, "evaluation": {"metric": "accuracy"}}
    document = {"config": config, "command": ["/x/finetune/__main__.py", "--workdir=a b"], "classes": [HOSTILE]}
    records.write(workdir / "config.json", document)
    for file, rows in (("trials.jsonl", trials), ("curves.jsonl", curves)):
        (workdir / file).unlink(missing_ok=True)
        records.append(workdir / file, rows)
    return workdir


def _trial(identity: str, rate: float, decay: float, seed: int, value: float | None) -> dict:
    metrics = {} if value is None else {"val_accuracy": value, "test_accuracy": value - 0.01, "train_loss": 0.1}
    return {
        "id": identity,
        "group": 0,
        "hparams": {"learning_rate": rate, "weight_decay": decay, "epochs": 4, "seed": seed, "data_seed": 0},
        "seed": seed,
        "status": "diverged" if value is None else "complete",
        "metrics": metrics,
        "best": None if value is None else {"epoch": 3, "step": 30, "value": value},
        "steps": 40,
        "reason": None,
    }


def _epoch(identity: str, epoch: int, value: float | None) -> dict:
    level = None if value is None else value - 0.1 / epoch
    loss = 1.0 / epoch
    return {
        "id": identity,
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": loss,
        "val_loss": loss,
        "val_accuracy": level,
    }


def write_table(path: Path, rows: int = 60) -> Path:
    """Writes a CSV table with a hostile value and a hostile name of a column; less of the metric `cost` is better."""
    random = np.random.default_rng(0)
    lines = ['config.rate,config.kind,"config.drop""<b>&",cost']
    for row in range(rows):
        rate, kind = 10 ** random.uniform(-4, 0), ("plain", HOSTILE)[row % 2]
        value = (np.log10(rate) + 2) ** 2 + random.normal(0, 0.1)
        lines.append(f'{rate},"{kind}",{random.uniform():.3f},{value}')
    path.write_text("\n".join(lines) + "\n")
    return path
