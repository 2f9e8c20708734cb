"""Tables as tools and papers write them, each with how it is to be read or the line that refuses it."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A table as text; reading: what is expected of axes (name: scale), seeds, test, statuses; refusal: words of it."""

    text: str
    metric: str
    reading: Mapping[str, Any] = {}
    refusal: tuple[str, ...] = ()
    ending: str = "csv"
    minimize: bool | None = None


def _lines(head: str, *rows: str) -> str:
    return "\n".join([head, *rows]) + "\n"


_WANDB = "Name,State,Notes,User,Tags,Created,Runtime,Sweep,batch_size,lr,seed,_step,epoch,eval/loss,val/acc,test/acc"
_RUN = "{},{},-,me,,2026-01-0{}T10:00:00.000Z,{},,{},{},{},{},{},{},{},{}"


def _wandb() -> str:
    rows = []
    for number in range(8):
        state = "running" if number == 7 else "crashed" if number == 6 else "finished"
        batch, rate, seed = (8, 16)[number % 2], ("1e-4", "1e-3")[number // 2 % 2], number // 4
        value = "" if number == 6 else 0.8 + number / 100
        run = (
            f"run-{number}",
            state,
            number + 1,
            100 + 7 * number,
            batch,
            rate,
            seed,
            900 + number,
            3,
            0.5 - number / 50,
        )
        rows.append(_RUN.format(*run, value, value))
    return _lines(_WANDB, *rows)


_OPTUNA = _lines(
    "number,value,datetime_start,datetime_complete,duration,params_lr,params_opt,system_attrs_nsga2:generation,state",
    "0,0.41,2026-01-01 10:00:00,2026-01-01 10:01:00,0 days 00:01:00,0.001,adam,0,COMPLETE",
    "1,0.52,2026-01-01 10:02:00,2026-01-01 10:03:00,0 days 00:01:00,0.05,sgd,0,PRUNED",
    "2,0.39,2026-01-01 10:04:00,2026-01-01 10:05:00,0 days 00:01:30,0.02,adam,1,COMPLETE",
    "3,,2026-01-01 10:06:00,2026-01-01 10:07:00,0 days 00:01:00,0.3,sgd,1,FAIL",
    "4,0.35,2026-01-01 10:08:00,,,0.0007,sgd,1,RUNNING",
)
_MLFLOW = _lines(
    "run_id,experiment_id,status,artifact_uri,start_time,end_time,params.lr,params.layers,metrics.val_f1,metrics.val_loss,"
    "tags.mlflow.runName",
    "a1,0,FINISHED,s3://a/a1,2026-01-01 10:00:00,2026-01-01 10:01:00,0.1,2,0.81,0.4,able-ant-1",
    "b2,0,FINISHED,s3://a/b2,2026-01-01 10:02:00,2026-01-01 10:03:00,0.1,2,0.82,0.4,bold-bee-2",
    "c3,0,FINISHED,s3://a/c3,2026-01-01 10:04:00,2026-01-01 10:05:00,0.01,4,0.83,0.3,calm-cat-3",
    "d4,0,KILLED,s3://a/d4,2026-01-01 10:06:00,2026-01-01 10:07:00,0.01,2,0.99,0.1,deft-dog-4",
)
_RAY = _lines(
    "val_accuracy,time_this_iter_s,done,training_iteration,trial_id,date,timestamp,time_total_s,pid,hostname,node_ip,"
    "time_since_restore,iterations_since_restore,config/lr,config/width,logdir",
    "0.80,1.1,True,10,aa_0,2026-01-01_10-00-00,1767261600,11.2,12,host-1,10.0.0.1,11.2,10,0.1,32,/r/aa_0",
    "0.99,1.2,True,1,aa_1,2026-01-01_10-01-00,1767261660,1.2,13,host-1,10.0.0.1,1.2,1,0.1,64,/r/aa_1",
    "0.85,1.3,True,10,aa_2,2026-01-01_10-02-00,1767261720,13.1,14,host-2,10.0.0.2,13.1,10,0.01,32,/r/aa_2",
    "0.98,1.4,False,1,aa_3,2026-01-01_10-03-00,1767261780,1.4,15,host-2,10.0.0.2,1.4,1,0.01,64,/r/aa_3",
    "0.86,1.4,True,10,aa_4,2026-01-01_10-04-00,1767261840,14.2,16,host-2,10.0.0.2,14.2,10,0.001,64,/r/aa_4",
)
_SKLEARN = _lines(
    "mean_fit_time,std_fit_time,mean_score_time,param_C,param_kernel,params,split0_test_score,split1_test_score,"
    "mean_test_score,std_test_score,rank_test_score",
    "0.01,0.001,0.002,0.1,rbf,\"{'C': 0.1, 'kernel': 'rbf'}\",-0.5,-0.7,-0.6,0.1,4",
    "0.02,0.001,0.002,1,rbf,\"{'C': 1, 'kernel': 'rbf'}\",-0.3,-0.5,-0.4,0.1,2",
    "0.03,0.001,0.002,0.1,linear,\"{'C': 0.1, 'kernel': 'linear'}\",-0.2,-0.4,-0.3,0.1,1",
    "0.04,0.001,0.002,1,linear,\"{'C': 1, 'kernel': 'linear'}\",-0.4,-0.6,-0.5,0.1,3",
)
_KERAS = (
    '{"trials": [{"trial_id": "00", "hyperparameters": {"units": 32, "learning_rate": 0.01}, "score": 0.3, '
    '"best_step": 4, "status": "COMPLETED"}, {"trial_id": "01", "hyperparameters": {"units": 64, "learning_rate": '
    '0.001}, "score": 0.2, "best_step": 3, "status": "COMPLETED"}, {"trial_id": "02", "hyperparameters": {"units": 64, '
    '"learning_rate": 0.01}, "score": null, "best_step": 0, "status": "INVALID"}]}'
)
_TRAINER = (
    '{"best_metric": 0.9, "log_history": [{"loss": 0.9, "grad_norm": 2.1, "learning_rate": 4e-05, "epoch": 1.0, '
    '"step": 100}, {"eval_accuracy": 0.8, "eval_loss": 0.5, "epoch": 1.0, "step": 100}, {"loss": 0.5, '
    '"learning_rate": 2e-05, "epoch": 2.0, "step": 200}, {"eval_accuracy": 0.9, "eval_loss": 0.4, "epoch": 2.0, '
    '"step": 200}, {"loss": 0.3, "learning_rate": 0, "epoch": 3, "step": 300}, {"eval_accuracy": 0.9, "epoch": 3.0, '
    '"step": 300}]}'
)
_HEAD = "lr,batch,accuracy"
_ROWS = ("0.1,8,0.7", "0.1,16,0.8", "0.01,8,0.9", "0.01,16,0.95")
_GRID = {"axes": {"lr": "log", "batch": "linear"}, "statuses": ["complete"] * 4, "design": "grid"}
_FINETUNED = "model,learning_rate,num_train_epochs,seed,eval_accuracy,eval_runtime,eval_samples_per_second,train_loss"

CASES = {
    "wandb": Case(
        _wandb(),
        "val/acc",
        {
            "axes": {"batch_size": "linear", "lr": "log"},
            "seeds": ("seed",),
            "test": "test/acc",
            "statuses": ["complete"] * 6 + ["failed", "stopped"],
            "not_used": {"crashed", "still running"},
            "minimize": False,
        },
    ),
    "wandb, its loss": Case(_wandb(), "eval/loss", {"axes": {"batch_size": "linear", "lr": "log"}, "minimize": True}),
    "optuna's data frame, no direction": Case(_OPTUNA, "value", refusal=("--metric=value", "--minimize or --maximize")),
    "optuna's data frame": Case(
        _OPTUNA,
        "value",
        {
            "axes": {"lr": "log", "opt": "category"},
            "statuses": ["complete", "stopped", "complete", "failed", "stopped"],
            "design": "adaptive",
            "minimize": True,
        },
        minimize=True,
    ),
    "mlflow": Case(
        _MLFLOW,
        "metrics.val_f1",
        {
            "axes": {"lr": "log", "layers": "linear"},
            "statuses": ["complete"] * 3 + ["stopped"],
            "measured": {"metrics.val_loss"},
        },
    ),
    "mlflow, metric without its prefix": Case(_MLFLOW, "val_f1", {"axes": {"lr": "log", "layers": "linear"}}),
    "ray tune": Case(
        _RAY,
        "val_accuracy",
        {
            "axes": {"lr": "log", "width": "linear"},
            "statuses": ["complete", "stopped", "complete", "stopped", "complete"],
            "not_used": {"ended at an earlier training_iteration than others", "still running"},
        },
    ),
    "scikit-learn": Case(_SKLEARN, "mean_test_score", {"axes": {"C": "log", "kernel": "category"}, "minimize": False}),
    "keras tuner, no direction": Case(_KERAS, "score", refusal=("--metric=score", "--minimize"), ending="json"),
    "keras tuner": Case(
        _KERAS,
        "score",
        {"axes": {"units": "linear", "learning_rate": "log"}, "statuses": ["complete"] * 2 + ["failed"]},
        ending="json",
        minimize=True,
    ),
    "log of hugging face's trainer": Case(_TRAINER, "eval_accuracy", refusal=("steps of a run",), ending="json"),
    "hugging face's results": Case(
        _lines(
            _FINETUNED,
            *(
                f"{model},{rate},3,{seed},{0.8 + place / 100},{10 + place}.5,{90 + place}.1,0.{place}1"
                for place, (model, rate, seed) in enumerate(
                    (m, r, s) for m in ("bert", "roberta") for r in ("1e-05", "5e-05") for s in (0, 1)
                )
            ),
        ),
        "eval_accuracy",
        {
            "axes": {"model": "category", "learning_rate": "linear"},
            "seeds": ("seed",),
            "fixed": ("num_train_epochs",),
            "measured": {"eval_runtime", "eval_samples_per_second", "train_loss"},
        },
    ),
    "a row for each epoch of each run": Case(
        _lines("run,lr,epoch,val_acc", *(f"{run},0.{run + 1},{e},0.{5 + e}" for run in (0, 1) for e in (1, 2, 3))),
        "val_acc",
        refusal=("epoch counts up from 1 to 3", "--ignore=epoch"),
    ),
    "mean and deviation in a cell": Case(
        _lines("method,acc", "A,92.3 ± 0.4", "B,91.1 ± 0.2"), "acc", refusal=("'92.3 ± 0.4'", "one number in a cell")
    ),
    "mean and deviation in some cells": Case(
        _lines("method,accuracy", "A,92.3", "B,91.1 (0.2)", "C,90.0"), "accuracy", refusal=("'91.1 (0.2)'",)
    ),
    "percent signs": Case(_lines("method,accuracy", "A,92.3%", "B,91.1%"), "accuracy", refusal=("'92.3%'",)),
    "25 methods": Case(
        _lines("method,dataset,accuracy", *(f"m{i % 25},{'ab'[i // 25]},0.{50 + i}" for i in range(50))),
        "accuracy",
        {"axes": {"method": "category", "dataset": "category"}, "design": "grid"},
    ),
    "25 methods once": Case(
        _lines("approach,acc", *(f"m{i},0.{50 + i}" for i in range(25))), "acc", {"axes": {"approach": "category"}}
    ),
    "a label that may be a choice": Case(
        _lines("kind_of_run,lr,accuracy", *(f"{'abcdefgh'[i]},{(0.1, 0.01)[i % 2]},0.{5 + i // 2}" for i in range(8))),
        "accuracy",
        {"axes": {"kind_of_run": "category", "lr": "log"}},
    ),
    "a label that nothing tells": Case(
        _lines("remark,lr,accuracy", *(f"{'abcdefgh'[i]},{(0.1, 0.01)[i % 2]},0.{5 + i // 2}" for i in range(8))),
        "accuracy",
        refusal=("8 rows are repeats but for 'remark'", "--hyperparameters=lr,remark", "--ignore=remark"),
    ),
    "lora's rank, and a rank of processes": Case(
        _lines(
            "rank,lr,accuracy,local_rank",
            *(f"{k},{rate},0.{k}{rate * 100:.0f},0" for k in (4, 8) for rate in (0.01, 0.1)),
        ),
        "accuracy",
        {"axes": {"rank": "linear", "lr": "log"}},
    ),
    "memory and a cost that diverged runs lack": Case(
        _lines(
            "lr,seed,accuracy,peak_memory_gb,cost,tries",
            *("0.1,0,0.8,9.1,2.1,1", "0.1,1,0.81,9.3,2.3,2", "1,0,nan,9.2,,", "1,1,nan,9.4,,"),
        ),
        "accuracy",
        {
            "axes": {"lr": "log"},
            "statuses": ["complete"] * 2 + ["diverged"] * 2,
            "measured": {"peak_memory_gb", "tries"},
        },
    ),
    "momentum that only sgd has": Case(
        _lines(
            "optimizer,momentum,lr,accuracy",
            *(f"{choice},0.{rate},0.{rate + 5}" for choice in ("sgd,0.9", "sgd,0.5", "adam,") for rate in (1, 2, 3)),
        ),
        "accuracy",
        {"axes": {"optimizer": "category", "momentum": "category", "lr": "linear"}, "statuses": ["complete"] * 9},
    ),
    "a finished run without a metric": Case(
        _lines("lr,State,accuracy,train_loss", "0.1,finished,,0.4", "0.2,finished,,nan", "0.3,finished,0.5,0.3"),
        "accuracy",
        {"axes": {"lr": "linear"}, "statuses": ["failed", "diverged", "complete"]},
    ),
    "a state that nobody knows": Case(
        _lines("lr,state,accuracy", "0.1,Texas,0.4", "0.2,Ohio,0.5"), "accuracy", refusal=("'Texas'", "--ignore=state")
    ),
    "semicolons and decimal commas": Case(
        _lines("lr;batch;accuracy", "0,1;8;0,7", "0,1;16;0,8", "0,01;8;0,9", "0,01;16;0,95"), "accuracy", _GRID
    ),
    "commas that may be thousands": Case(
        _lines("steps;accuracy", "1,000;0,75", "2,000;0,81"), "accuracy", refusal=("'1,000'", "'steps'")
    ),
    "points and commas": Case(
        _lines("lr;accuracy", "0,1;0.75", "0,2;0.81"), "accuracy", refusal=("decimal commas (in 'lr')", "points")
    ),
    "a quoted decimal comma": Case(_lines(_HEAD, '0.1,8,"0,75"', '0.2,8,"0,85"'), "accuracy", refusal=("'0,75'",)),
    "tabs in a .csv": Case(_lines(_HEAD, *_ROWS).replace(",", "\t"), "accuracy", _GRID),
    "a byte order mark": Case("\ufeff" + _lines(_HEAD, *_ROWS), "accuracy", _GRID),
    "windows' ends of lines": Case(_lines(_HEAD, *_ROWS).replace("\n", "\r\n"), "accuracy", _GRID),
    "a column twice": Case(_lines("lr,lr,acc", "1,2,3", "2,3,4"), "acc", refusal=("two columns are named 'lr'",)),
    "a key twice": Case('{"lr": 1, "lr": 2, "accuracy": 3}\n', "accuracy", refusal=("'lr'",), ending="jsonl"),
    "a row cut short": Case(_lines(_HEAD, *_ROWS[:3], "0.01"), "accuracy", refusal=("row 5 has 1 cells",)),
    "a row too long": Case(_lines(_HEAD, "0.1,8,0.7,9", *_ROWS), "accuracy", refusal=("row 2 has 4 cells",)),
    "a header only": Case(_HEAD + "\n", "accuracy", refusal=("has no rows",)),
    "nothing": Case("", "accuracy", refusal=("it is empty",)),
    "control characters": Case(
        _lines("l\x00r,kind,accuracy", "0.1,a\x1b[31m,0.7", "0.1,b,0.8", "0.01,a\x1b[31m,0.9", "0.01,b,0.95"),
        "accuracy",
        {"axes": {"l\ufffdr": "log", "kind": "category"}, "note": "3 cells hold control characters"},
    ),
    "infinity in json": Case(
        '{"lr": 0.1, "loss": NaN}\n{"lr": 0.2, "loss": Infinity}\n{"lr": 0.3, "loss": 0.5}\n'
        '{"lr": 0.4, "loss": null}\n',
        "loss",
        {"axes": {"lr": "linear"}, "statuses": ["diverged", "diverged", "complete", "failed"], "minimize": True},
        ending="jsonl",
    ),
    "a json that is nested too deeply": Case("[" * 100_000, "loss", refusal=("nested too deeply",), ending="json"),
    "huge integers": Case(
        _lines("lr,seed,accuracy", *(f"0.{rate},{2**70 + seed},0.5" for rate in (1, 2) for seed in (0, 1))),
        "accuracy",
        {"axes": {"lr": "linear"}, "seeds": ("seed",), "repeats": 2},
    ),
    "numbers and words in a column": Case(
        _lines("lr,accuracy", "0.1,0.5", "auto,0.6", "0.2,0.7"), "accuracy", {"axes": {"lr": "category"}}
    ),
    "two tables in one file": Case(
        '{"a": [{"x": 1, "loss": 2}], "b": [{"x": 1, "loss": 3}]}', "loss", refusal=("2 tables: a, b",), ending="json"
    ),
}
