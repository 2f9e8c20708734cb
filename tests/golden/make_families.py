"""Writes tests/golden/families: python -m tests.golden.make_families, with torch and transformers 5.24.

Each file holds the config.json of a tiny encoder, the shapes of its tensors, whose values `families.draw` gives, hidden
states as transformers computes them, and the tensors of its classes with a head.
"""

import json

import torch
import transformers

from tests.helpers import families

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"vocab_size": 40, "max_position_embeddings": 24, "pad_token_id": 0}
BEHIND = SIZES | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40, "max_position_embeddings": 24}
MODERN = SIZES | {"num_hidden_layers": 4, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2}
APART = {"relative_attention": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}
APART |= {"pos_att_type": "p2c|c2p", "position_biased_input": False}
CASES = {
    "bert": SIZES,
    "bert_gelu_new": SIZES | {"hidden_act": "gelu_new", "type_vocab_size": 1},
    "bert_relu": SIZES | {"hidden_act": "relu"},
    "bert_silu": SIZES | {"hidden_act": "silu"},
    "roberta": BEHIND,
    "xlm-roberta": BEHIND,
    "camembert": BEHIND,
    "distilbert": DISTIL,
    "electra": SIZES | {"embedding_size": 8},
    "mpnet": {name: value for name, value in BEHIND.items() if name != "type_vocab_size"},
    "modernbert": MODERN | {"bos_token_id": 1, "eos_token_id": 2},
    "deberta-v2": SIZES | APART,
}
LENGTHS, TOKENS = [20, 6], 20


def make(name: str, settings: dict) -> dict:
    """Returns what the file of a case holds."""
    config = transformers.AutoConfig.for_model(name.split("_")[0], **settings)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    state = model.state_dict()
    shapes = {name: list(each.shape) for name, each in state.items() if each.is_floating_point()}
    model.load_state_dict({name: torch.tensor(each) for name, each in families.draw(shapes).items()}, strict=False)
    pad = settings.get("pad_token_id", 0)
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 40, (len(LENGTHS), TOKENS), generator=random)
    mask = (torch.arange(TOKENS)[None] < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {"input_ids": torch.where(mask > 0, ids, pad), "attention_mask": mask}
    if settings.get("type_vocab_size", 2) > 1 and name.startswith(("bert", "electra")):
        inputs["token_type_ids"] = (torch.arange(TOKENS)[None] >= 4).long() * mask
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    found = {
        "config": json.loads(config.to_json_string()),
        "shapes": shapes,
        "length": LENGTHS,
        **{name: each.tolist() for name, each in inputs.items() if name != "attention_mask"},
        "hidden": [
            [[round(x, 6) for x in row] for row in one[:length].tolist()]
            for one, length in zip(hidden, LENGTHS, strict=True)
        ],
    }
    if "_" not in name:
        found["classes"] = {
            kind: tensors_of(kind, config) for kind in ("TokenClassification", "SequenceClassification")
        }
    return found


def tensors_of(kind: str, config: transformers.PretrainedConfig) -> dict:
    """Returns the name of a class with a head of three labels, and the shapes of its tensors."""
    config.num_labels = 3
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    state = {name: list(each.shape) for name, each in model.state_dict().items() if each.is_floating_point()}
    return {"name": type(model).__name__, "shapes": state}


if __name__ == "__main__":
    families.GOLDEN.mkdir(exist_ok=True)
    for case, settings in CASES.items():
        text = json.dumps(make(case, settings), separators=(",", ":"))
        (families.GOLDEN / f"{case}.json").write_text(text + "\n")
