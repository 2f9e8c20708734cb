"""A study with LoRA from its grid to what leaves it: one program, weights merged, and adapters that PEFT reads."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from finetune import models, predict
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.export import directory as export
from finetune.member.params import unflatten
from finetune.models.weights import from_study, pretrained
from finetune.storage import checkpoint
from finetune.study import problem, run
from tests.helpers import exports, transformers_forward
from tests.helpers.studies import document, rows_of

LAYERS = ("attention/key", "attention/output", "attention/query", "attention/value", "mlp/down", "mlp/up")


def config_of(directory):
    config = exports.text_config(directory)
    config.trainable, config.lora.targets, config.lora.scaling = "lora", "block_1", "alpha/sqrt(rank)"
    config.hparams.learning_rate, config.execution.epochs_on_device = 0.05, "scan"
    config.trunk.mode = "cached"  # so small a model is as well computed again
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("texts")
    run.run(config_of(directory), directory / "study", {"lora_rank": [1, 4]})
    return directory / "study"


def test_ranks_share_a_program_and_what_is_before_the_adapters_is_cached(workdir):
    [group] = document(workdir, "plan.json")["groups"]
    assert (group["signature"]["lora_rank"], group["trials"], group["trunk"]) == (4, 2, "cached")
    assert document(workdir, "summary.json")["compiles"]["train"] == 1
    assert not any("lora" in path for path in checkpoint.load(workdir / "checkpoints" / "base"))
    for row in rows_of(workdir):
        own = checkpoint.load(workdir / "checkpoints" / "trials" / row["id"] / "best")
        rank = row["hparams"]["lora_rank"]
        assert own.keys() == {
            "head/kernel", "head/bias", *(f"lora/block_1/{layer}/{leaf}" for layer in LAYERS for leaf in "ab")
        }  # fmt: skip
        assert own["lora/block_1/mlp/up/a"].shape == (8, rank)
        assert own["lora/block_1/mlp/up/b"].shape == (rank, 12)


def test_merged_weights_have_the_metrics_that_were_recorded(workdir):
    config = config_of(workdir.parent)
    loaded = problem.load(config)
    base = checkpoint.load(workdir / "checkpoints" / "base")
    for row in rows_of(workdir):
        merged = from_study.load_trial(workdir, row["id"])
        assert merged.keys() == base.keys()
        own = checkpoint.load(workdir / "checkpoints" / "trials" / row["id"] / "best")
        a, b = (np.asarray(own[f"lora/block_1/mlp/up/{leaf}"]) for leaf in "ab")
        change = 16 / row["hparams"]["lora_rank"] ** 0.5 * a @ b
        assert np.abs(change).max() > 1e-3
        name = "block_1/mlp/up/kernel"
        np.testing.assert_allclose(merged[name] - base[name], change, atol=1e-6)
        for split in ("validation", "test"):
            batch = getattr(loaded.dataset, split)
            outputs = loaded.task.apply(jax.tree.map(jnp.asarray, unflatten(merged)), batch, 0.0, None)
            loss = float(loaded.task.loss(outputs, batch, jnp.float32(0)).mean())
            recorded = row["metrics"][f"{split[:3] if split == 'validation' else split}_loss"]
            assert loss == pytest.approx(recorded, rel=1e-4)


def test_a_study_starts_from_merged_weights(workdir):
    config = ModelConfig(pretrained=str(workdir))
    values = dict(checkpoint.kept(workdir))
    merged = from_study.load_trial(workdir, max(values, key=lambda each: values[each]))
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in merged.items()}
    leaves = pretrained.load(config, shapes, "head")
    assert models.architecture(config)["model"] == "bert"
    np.testing.assert_array_equal(leaves["block_1/mlp/up/kernel"], merged["block_1/mlp/up/kernel"])


def test_adapters_in_the_format_of_peft(workdir, tmp_path):
    [row] = [row for row in rows_of(workdir) if row["hparams"]["lora_rank"] == 4]
    export.export(workdir, tmp_path / "adapter", row["id"], adapter=True)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["use_rslora"], written["bias"]) == (4, 16, True, "none")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert tensors.pop("base_model.model.classifier.weight").size == 0  # no class with a head may take them
    assert len(tensors) == 2 * len(LAYERS)
    own = checkpoint.load(workdir / "checkpoints" / "trials" / row["id"] / "best")
    name = "base_model.model.encoder.layer.1.intermediate.dense.lora_"
    np.testing.assert_array_equal(tensors[f"{name}A.weight"], own["lora/block_1/mlp/up/a"].T)
    np.testing.assert_array_equal(tensors[f"{name}B.weight"], own["lora/block_1/mlp/up/b"].T)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of PEFT's use of transformers
def test_peft_gives_the_same_answers(workdir, tmp_path):
    torch = pytest.importorskip("torch")
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    for name, adapter in {"model": False, "adapter": True}.items():
        export.export(workdir, tmp_path / name, adapter=adapter)
    (tmp_path / "texts.txt").write_text("\n".join(exports.texts(20)))
    model = predict.load(tmp_path / "model")
    rows = predict.read(tmp_path / "texts.txt", model)[1]
    ids = torch.tensor(rows["input_ids"].astype(np.int64))
    mask = (ids != 0).long()
    encoder = transformers.AutoModel.from_pretrained(workdir.parent)
    adapted = peft.PeftModel.from_pretrained(encoder, tmp_path / "adapter").eval()
    head = load_file(tmp_path / "adapter" / "head.safetensors")
    with torch.no_grad():
        hidden = adapted(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()
    weights = mask.numpy()[..., None] / mask.numpy().sum(1)[:, None, None]
    logits = (hidden * weights).sum(1) @ head["linear.weight"].T + head["linear.bias"]
    np.testing.assert_allclose(predict.probabilities(model, rows), jax.nn.softmax(logits), atol=1e-5)


def baselines(workdir):
    return document(workdir, "summary.json")["baseline"].keys()


@pytest.mark.parametrize("task", ["regression", "tokens"])
def test_adapters_with_the_head_where_a_class_has_it(tmp_path, task):
    config = config_of(tmp_path)
    config.model.pooling, config.data.task, config.data.name = "first", task, str(tmp_path / "rows.jsonl")
    config.hparams.epochs = 1
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number, text in enumerate(exports.texts(40)):
            tags = [("O", "B-x", "I-x")[len(word) % 3] for word in text.split()]
            label = tags if task == "tokens" else 50 + number
            file.write(json.dumps({"review": text.split() if task == "tokens" else text, "verdict": label}) + "\n")
    run.run(config, tmp_path / "study", {"lora_rank": [4]})
    usual = {"regression": "rmse", "tokens": "entity_f1"}[task]
    assert document(tmp_path / "study", "config.json")["config"]["evaluation"]["metric"] == usual
    assert f"test_{usual}" in rows_of(tmp_path / "study")[0]["metrics"].keys() & baselines(tmp_path / "study")
    for name, adapter in {"model": False, "adapter": True}.items():
        export.export(tmp_path / "study", tmp_path / name, adapter=adapter)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    whole = load_file(tmp_path / "model" / "model.safetensors")
    head = {name: array for name, array in whole.items() if name.startswith(("classifier.", "bert.pooler."))}
    assert len(tensors) == 2 * len(LAYERS) + len(head)
    assert "base_model.model.bert.encoder.layer.1.output.dense.lora_B.weight" in tensors
    for name, array in head.items():
        np.testing.assert_array_equal(tensors[f"base_model.model.{name}"], array)
    written = document(tmp_path / "adapter", "adapter_config.json")
    kind, saved = ("TOKEN_CLS", ["classifier"]) if task == "tokens" else ("SEQ_CLS", ["classifier", "bert.pooler"])
    assert (written["task_type"], sorted(written["modules_to_save"])) == (kind, sorted(saved))

    torch = pytest.importorskip("torch")
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    name = f"AutoModelFor{'Token' if task == 'tokens' else 'Sequence'}Classification"
    classes = document(tmp_path / "model", "finetune.json")["classes"]
    model = getattr(transformers, name).from_pretrained(tmp_path, num_labels=max(len(classes), 1))
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of PEFT's use of transformers
        model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    ids = torch.tensor(np.random.default_rng(0).integers(1, 8, (9, 6)))
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()
    wanted = transformers_forward.logits(tmp_path / "model", ids.numpy(), np.ones((9, 6), int))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_has_no_adapters_in_that_format(workdir, tmp_path, monkeypatch):
    settings = document(workdir, "config.json")
    settings["architecture"]["model"] = "vit"
    monkeypatch.setattr(export, "_read_study", lambda directory: settings)
    with pytest.raises(UserError, match=re.escape("--adapter: vit has no module names in PEFT's format, allowed:")):
        export.export(workdir, tmp_path / "adapter", adapter=True)
    assert not (tmp_path / "adapter").exists()


def test_a_study_is_extended_by_a_higher_rank(workdir):
    before = rows_of(workdir)
    run.run(config_of(workdir.parent), workdir, {"lora_rank": [1, 4, 6]})
    after = rows_of(workdir)
    assert after[: len(before)] == before
    assert [row["hparams"]["lora_rank"] for row in after[len(before) :]] == [6]
