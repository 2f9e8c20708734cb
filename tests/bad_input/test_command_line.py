"""Mistakes in flags, settings, axes and selections of parameters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import check_error

from finetune import __main__

# name: (arguments, words of the line)
FLAGS = {
    "unknown flag": (["--plan_onl"], ["plan_onl", "plan_only"]),
    "stray argument": (["epochs=3"], ["'epochs=3'", "--help"]),
    "seeds not a number": (["--seeds=many"], ["seeds", "many"]),
    "no seeds": (["--seeds=0"], ["--seeds is 0", "1 or more"]),
    "too many seeds": (["--seeds=99999999999"], ["--seeds is 99999999999", "at most"]),
    "seeds twice": (["--seeds=2", "--grid=seed=0,1"], ["--seeds", "--grid=seed"]),
    "unknown setting": (["--config.hparams.learning_rat=1"], ["hparams.learning_rat'", "hparams.learning_rate'"]),
    "unknown section": (["--config.optimiser.name=sgd"], ["optimiser.name", "optimizer.name"]),
    "setting without value": (["--config.hparams.epochs"], ["hparams.epochs", "no value"]),
    "text for a whole number": (["--config.hparams.epochs=ten"], ["hparams.epochs", "'ten'", "whole number"]),
    "fraction for a whole number": (["--config.hparams.epochs=1.5"], ["hparams.epochs", "'1.5'", "whole number"]),
    "text for a number": (["--config.hparams.learning_rate=big"], ["hparams.learning_rate", "'big'", "a number"]),
    "negative rate": (["--config.hparams.learning_rate=-0.1"], ["learning_rate is -0.1", ">= 0"]),
    "nan": (["--config.hparams.weight_decay=nan"], ["weight_decay is nan", "finite"]),
    "infinity": (["--config.hparams.learning_rate=1e999"], ["learning_rate is inf", "finite"]),
    "dropout of one": (["--config.hparams.dropout=1"], ["dropout is 1", "0 <= value < 1"]),
    "epsilon below zero": (["--config.optimizer.epsilon=-1"], ["optimizer.epsilon is -1", "above 0"]),
    "negative count": (["--config.data.train_examples=-1"], ["data.train_examples is -1", "0 to 2147483647"]),
    "negative keep": (["--config.checkpoint.keep=-3"], ["checkpoint.keep is -3", "0 to 2147483647"]),
    "huge whole number": (["--config.hparams.epochs=99999999999"], ["epochs is 99999999999", "2147483647"]),
    "huge width": (["--config.model.width=99999999999"], ["model.width is 99999999999", "2147483647"]),
    "huge max_length": ([f"--config.data.max_length={10**30}"], ["data.max_length", "2147483647"]),
    "no batch": (["--config.hparams.batch_size=0"], ["batch_size is 0", "1 <= value"]),
    "no evaluation batch": (["--config.evaluation.batch_size=0"], ["evaluation.batch_size is 0", "1 or more"]),
    "batch larger than the data": (["--config.hparams.batch_size=41"], ["batch_size is 41", "40 training examples"]),
    "unknown metric": (["--config.evaluation.metric=f1"], ["evaluation.metric", "'f1'", "loss, accuracy"]),
    "unknown optimizer": (["--config.optimizer.name=adam"], ["optimizer.name", "'adam'", "adamw", "lion"]),
    "unknown mode": (["--config.execution.mode=pmap"], ["execution.mode", "'pmap'", "vmap"]),
    "unknown dtype": (["--config.model.dtype=float16"], ["model.dtype", "'float16'", "bfloat16"]),
}
GRID = {
    "unknown axis": (["--grid=learning_rte=1"], ["axis", "'learning_rte'", "'learning_rate'"]),
    "no values": (["--grid=learning_rate"], ["'learning_rate'", "NAME=a,b,c"]),
    "unparsable": (["--grid=learning_rate=1,fast"], ["learning_rate", "'fast'", "a number"]),
    "empty value": (["--grid=learning_rate=1,,2"], ["learning_rate", "''", "a number"]),
    "out of range": (["--grid=label_smoothing=0,1"], ["label_smoothing is 1", "0 <= value < 1"]),
    "nan on an axis": (["--grid=learning_rate=nan"], ["learning_rate is nan", "finite"]),
    "infinity on an axis": (["--grid=l2=inf"], ["l2 is inf", "finite"]),
    "fraction of an epoch": (["--grid=epochs=lin:1:2:3"], ["epochs is 1.5", "whole numbers"]),
    "log from zero": (["--grid=learning_rate=log:0:1:3"], ["log:0:1:3", "LOW > 0"]),
    "log of two parts": (["--grid=learning_rate=log:1e-3:1"], ["log:1e-3:1'", "LOW:HIGH:N"]),
    "axis too long": (["--grid=learning_rate=lin:0:1:999999999"], ["999999999", "at most"]),
    "grid too large": (["--seeds=90000", "--grid=data_seed=lin:0:89999:90000"], ["8100000000", "at most"]),
    "axis twice": (["--grid=seed=1", "--grid=seed=2"], ["'seed'", "twice"]),
    "unknown schedule": (["--grid=schedule=cosin"], ["schedule", "'cosin'", "'cosine'"]),
    "batch on an axis": (["--grid=batch_size=8,64"], ["batch_size is 64", "40 training examples"]),
    "empty choice": (["--grid=trainable=head,"], ["trainable", "empty"]),
}
TRAINABLE = {
    "hits nothing": (["--config.trainable=blok_0/*"], ["'blok_0/*'", "hits no parameter", "block_0"]),
    "freezes nothing": (["--config.trainable=all+!nothing/*"], ["'!nothing/*'", "hits no parameter"]),
    "everything frozen": (["--config.trainable=all+!**"], ["'all+!**'", "nothing trains"]),
    "head frozen": (["--config.trainable=!head"], ["'!head'", "nothing trains"]),
    "nothing selected": (["--config.trainable="], ["trainable is ''", "nothing trains"]),
    "too many blocks": (["--grid=trainable=head,last:99"], ["'last:99'", "last:1 to last:1"]),
}


@pytest.mark.parametrize("arguments, words", FLAGS.values(), ids=FLAGS)
def test_flag(refused, arguments, words):
    refused(arguments, words)


@pytest.mark.parametrize("arguments, words", GRID.values(), ids=GRID)
def test_axis(refused, arguments, words):
    refused(arguments, words)


@pytest.mark.parametrize("arguments, words", TRAINABLE.values(), ids=TRAINABLE)
def test_selection(refused, arguments, words):
    refused(arguments, words)


def test_missing_flags(inputs, tmp_path, fails):
    fails([f"--workdir={tmp_path}/study"], ["--config", "configs/quickstart.py"])
    fails([f"--config={tmp_path}/absent.py", f"--workdir={tmp_path}/study"], ["--config", "absent.py"])
    fails([f"--config={tmp_path}", f"--workdir={tmp_path}/study"], ["--config", str(tmp_path)])
    fails([f"--config={inputs}/vit.py"] * 2 + [f"--workdir={tmp_path}/study"], ["--config", "vit.py, ", "one file"])
    fails([f"--config={inputs}/vit.py"], ["--workdir is missing"])
    fails([f"--config={inputs}/vit.py", "--workdir="], ["--workdir is missing"])


@pytest.mark.parametrize("arguments, words", [FLAGS["unknown setting"], GRID["grid too large"]])
def test_as_a_process(inputs, tmp_path, arguments, words):
    command = [sys.executable, "-m", "finetune", f"--config={inputs}/vit.py", f"--workdir={tmp_path}/study", *arguments]
    root = Path(__main__.__file__).parent.parent
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    check_error(done.returncode, done.stderr, words)
