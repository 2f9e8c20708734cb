"""Directories as sentence-transformers writes them, and settings that are left to what they declare."""

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from finetune.config import Config, DataConfig, ModelConfig
from finetune.data import text
from finetune.errors import UserError
from finetune.member.params import unflatten
from finetune.models import settled
from finetune.models.weights import pretrained, sentence_transformers
from finetune.study import problem

MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
KINDS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture
def save(bert_tensors, save_bert):
    """Returns a function that writes a directory of modules with a tokenizer of WORDS, and returns its path."""

    def write(*mode, modules=("Transformer", "Pooling"), package="models", pooling=None, **bert):
        directory = save_bert(bert_tensors)
        rows = [
            {"idx": n, "name": str(n), "path": KINDS.get(kind, kind), "type": f"sentence_transformers.{package}.{kind}"}
            for n, kind in enumerate(modules)
        ]
        (directory / "modules.json").write_text(json.dumps(rows))
        (directory / "1_Pooling").mkdir(exist_ok=True)
        flags = {f"pooling_mode_{each}": each in mode for each in MODES}
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling or flags))
        (directory / "sentence_bert_config.json").write_text(json.dumps(bert))
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="zero"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(directory / "tokenizer.json"))
        return directory

    return write


def config_of(directory, pooling="auto", max_length=0):
    return Config(model=ModelConfig(pretrained=str(directory), pooling=pooling), data=DataConfig(max_length=max_length))


@pytest.mark.parametrize(("mode", "ours"), [("cls_token", "first"), ("mean_tokens", "mean"), ("max_tokens", "max")])
def test_pooling_and_length_are_taken_and_told(save, mode, ours):
    directory = save(mode, max_seq_length=6)
    config, notes = settled.settle(config_of(directory))
    assert (config.model.pooling, config.data.max_length) == (ours, 6)
    assert notes == (f"model.pooling={ours}, data.max_length=6: as {directory} declares",)
    assert settled.pooling(ModelConfig(pretrained=str(directory))) == ours
    assert settled.settle(config) == (config, ())
    config, notes = settled.settle(config_of(directory / "model.safetensors", ours, 4))  # shorter than the longest
    assert (config.model.pooling, config.data.max_length, notes) == (ours, 4, ())


def test_newer_files_name_one_mode(save):
    directory = save(package="sentence_transformer.modules", pooling={"embedding_dimension": 8, "pooling_mode": "cls"})
    assert sentence_transformers.declared(directory).pooling == "first"


def test_nothing_is_declared_without_modules(save):
    directory = save("cls_token", max_seq_length=6)
    (directory / "modules.json").unlink()
    config, notes = settled.settle(config_of(directory))
    assert (config.model.pooling, config.data.max_length, notes) == ("mean", 128, ())
    config, notes = settled.settle(Config())  # of a packaged model, which is not looked for
    assert (config.model.pooling, config.data.max_length, notes) == ("mean", 128, ())


def test_what_contradicts_is_refused(save):
    directory = save("cls_token", max_seq_length=6)
    with pytest.raises(UserError, match=r"model\.pooling is 'mean', and modules\.json of .* declares 'first', allowed"):
        settled.settle(config_of(directory, "mean"))
    with pytest.raises(UserError, match=r"data\.max_length is 7, and sentence_bert_config\.json of .* at most 6"):
        settled.settle(config_of(directory, max_length=7))


@pytest.mark.parametrize(
    ("modes", "changes", "message"),
    [
        (["weightedmean_tokens"], {}, r"1_Pooling/config\.json pools by weightedmean, allowed: cls, mean, max"),
        (["cls_token", "mean_tokens"], {}, "pools by cls and mean, allowed"),
        ([], {}, "pools by nothing, allowed"),
        (["mean_tokens"], {"modules": ("Transformer", "Pooling", "Dense")}, r"modules\.json has the module 'Dense'"),
        (["mean_tokens"], {"modules": ("../other/Transformer",)}, "names the directory '../other/Transformer'"),
        (["mean_tokens"], {"max_seq_length": "long"}, "max_seq_length is long, allowed: a whole number"),
    ],
)
def test_what_is_not_supported_is_named(save, modes, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        settled.settle(config_of(save(*modes, **changes)))
    assert "\n" not in str(caught.value)


def test_what_is_not_applied_is_told(save):
    directory = save("mean_tokens", modules=("Transformer", "Pooling", "Normalize"))
    (directory / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query"}')
    assert settled.settle(config_of(directory))[1][1:] == (
        f"{directory / 'modules.json'}: Normalize is not applied, the new head reads what is pooled",
        f"{directory / 'config_sentence_transformers.json'}: the prompt 'query' is not put before texts",
    )


def test_damaged_modules(save):
    directory = save("mean_tokens")
    for content in ("{", '[{"path": ""}]', "3"):
        (directory / "modules.json").write_text(content)
        with pytest.raises(UserError, match=r"modules\.json cannot be read"):
            settled.settle(config_of(directory))


def test_an_older_directory_holds_its_encoder_below(save, tmp_path):
    directory = save("cls_token", max_seq_length=5)
    older = tmp_path / "older"
    shutil.copytree(directory, older / "0_Transformer")
    shutil.move(older / "0_Transformer" / "1_Pooling", older / "1_Pooling")
    rows = json.loads((older / "0_Transformer" / "modules.json").read_text())
    (older / "0_Transformer" / "modules.json").unlink()
    rows[0]["path"] = "0_Transformer"
    (older / "modules.json").write_text(json.dumps(rows))
    config = config_of(older)
    assert pretrained.content_hash(config.model) == pretrained.content_hash(ModelConfig(pretrained=str(directory)))
    found, _ = settled.settle(config)
    assert (found.model.pooling, found.data.max_length) == ("first", 5)


def test_a_study_of_a_directory_is_one_with_its_settings(save, tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "one Two three four,a\nfive six,b\n" * 5)
    declaring = save("cls_token", max_seq_length=3, do_lower_case=True)
    plain = shutil.copytree(declaring, tmp_path / "plain")
    (plain / "modules.json").unlink()
    (plain / "sentence_bert_config.json").unlink()
    found, named = (
        problem.load(
            Config(model=ModelConfig(pretrained=str(path), pooling=pooling),
                   data=DataConfig(name=str(tmp_path / "x.csv"), max_length=length))
        )
        for path, pooling, length in ((declaring, "auto", 0), (plain, "first", 3))
    )  # fmt: skip
    assert found.description["model.pooling"] == "first"
    ids = {tuple(row) for row in found.dataset.train["input_ids"].tolist()}
    assert ids == {(1, 2, 3), (5, 6, 0)}
    assert [1, 0, 3] in named.dataset.train["input_ids"].tolist()
    batch = {name: array[:4] for name, array in named.dataset.train.items()}
    np.testing.assert_array_equal(*(each.task.apply(unflatten(each.base), batch, 0.0, None) for each in (found, named)))
    written = Tokenizer.from_str(text.document(declaring / "tokenizer.json"))  # what a study keeps
    assert written.encode("one TWO three").ids == [1, 2, 3]
