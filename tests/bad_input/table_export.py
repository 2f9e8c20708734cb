"""Mistakes in what leaves a study: exports, predictions, and packaged files.

name: (arguments, words of the line); {inputs} holds what `files.write` wrote, {study} is a study that has finished.
"""

EXPORT = {
    "no study named": (["export", "--to={to}"], ["WORKDIR", "usage"]),
    "no directory named": (["export", "{study}"], ["--to", "usage"]),
    "shortened flag": (["export", "{study}", "--t={to}"], ["--to", "usage"]),
    "absent study": (["export", "{inputs}/nowhere", "--to={to}"], ["nowhere", "holds no study"]),
    "directory of something else": (["export", "{inputs}/list", "--to={to}"], ["config.json", "allowed"]),
    "directory with another config.json": (["export", "{inputs}/bert", "--to={to}"], ["config.json", "allowed"]),
    "unknown trial": (["export", "{study}", "--trial=0123", "--to={to}"], ["--trial is '0123'", "allowed"]),
    "directory that is full": (["export", "{study}", "--to={inputs}/bert"], ["bert", "there already", "new"]),
    "directory that is a file": (["export", "{study}", "--to={inputs}/texts.csv"], ["texts.csv", "there already"]),
    "directory below a file": (["export", "{study}", "--to={inputs}/texts.csv/x"], ["texts.csv/x", "can be written"]),
}
PREDICT = {
    "no input named": (["predict", "{inputs}/model"], ["INPUT", "usage"]),
    "absent model": (["predict", "{inputs}/nowhere", "{inputs}/words.txt"], ["nowhere", "finetune.json"]),
    "a study is no model": (["predict", "{study}", "{inputs}/words.txt"], ["finetune.json", "finetune.export"]),
    "other format": (["predict", "{inputs}/model format 2", "{inputs}/words.txt"], ["format 2", "allowed: 1"]),
    "cut description": (["predict", "{inputs}/model cut", "{inputs}/words.txt"], ["finetune.json", "cannot be read"]),
    "description of nothing": (["predict", "{inputs}/model list", "{inputs}/words.txt"], ["finetune.json", "allowed"]),
    "dtype of no model": (
        ["predict", "{inputs}/model dtype", "{inputs}/words.txt"],
        ["model.dtype", "int8", "bfloat16"],
    ),
    "unknown setting of a model": (["predict", "{inputs}/model unknown", "{inputs}/words.txt"], ["'size'", "damaged"]),
    "classes that are no names": (["predict", "{inputs}/model classes", "{inputs}/words.txt"], ["classes", "names"]),
    "more classes than the head": (
        ["predict", "{inputs}/model 3 classes", "{inputs}/words.txt"],
        ["head/kernel [8, 2] where [8, 3]"],
    ),
    "cut weights": (["predict", "{inputs}/model weights", "{inputs}/words.txt"], ["model.safetensors", "cannot read"]),
    "no head": (["predict", "{inputs}/model head", "{inputs}/words.txt"], ["2_Dense/model.safetensors", "cannot read"]),
    "no tokenizer": (["predict", "{inputs}/model tokenizer", "{inputs}/words.txt"], ["tokenizer.json", "not a"]),
    "absent input": (["predict", "{inputs}/model", "{inputs}/no.csv"], ["no.csv", "no such file"]),
    "input of another kind": (["predict", "{inputs}/model", "{inputs}/whole.npz"], ["'.npz'", ".csv", ".txt"]),
    "folder for texts": (["predict", "{inputs}/model", "{inputs}/images"], ["images", ".csv", ".txt"]),
    "input without the column": (["predict", "{inputs}/model", "{inputs}/column.csv"], ["no column 'text'", "body"]),
    "input without rows": (["predict", "{inputs}/model", "{inputs}/empty.txt"], ["empty.txt", "no rows"]),
    "input that is not UTF-8": (["predict", "{inputs}/model", "{inputs}/latin.txt"], ["latin.txt", "utf-8"]),
    "nowhere to write": (
        ["predict", "{inputs}/model", "{inputs}/words.txt", "--to={inputs}/no/where.csv"],
        ["no/where.csv", "a directory that exists"],
    ),
}
ASSETS = {
    "unknown asset": (["assets", "minilmm"], ["'minilmm'", "did you mean 'minilm'"]),
    "unknown flag of assets": (["assets", "--al"], ["--al", "usage"]),
}
