"""ModernBERT: fused projections, and settings of which kind of attention each block has and how it turns."""

from collections.abc import Mapping
from typing import Any

from finetune.errors import UserError
from finetune.models.weights.families.family import SIZES, Family, Settings

_KINDS = {"global": "full_attention", "local": "sliding_attention"}
_THETAS = {"global": 160_000.0, "local": 10_000.0}


def _derive(settings: Settings) -> dict[str, Any]:
    """Returns "global_every" and the thetas of files of transformers 5 and 4; raises UserError for what is neither."""
    every = settings.get("global_attn_every_n_layers", 3)
    kinds = settings.get("layer_types")
    if kinds is not None:
        depth = len(kinds) if isinstance(kinds, list) else 0
        every = next((each for each in range(1, depth + 1) if _layer_types(each, depth) == kinds), None)
        if every is None or depth != settings["num_hidden_layers"]:
            raise UserError(
                f"layer_types is {str(kinds)[:80]}, allowed: full_attention in every n-th of num_hidden_layers blocks"
            )
    return {"global_every": every} | {f"{kind}_theta": _theta(settings, kind) for kind in _KINDS}


def _layer_types(every: int, depth: int) -> list[str]:
    return [_KINDS["local" if index % every else "global"] for index in range(depth)]


def _theta(settings: Settings, kind: str) -> Any:
    name = f"{kind}_rope_theta"
    theta = settings.get(name, _THETAS[kind])
    if (parameters := settings.get("rope_parameters")) is not None:
        found = parameters.get(_KINDS[kind]) if isinstance(parameters, dict) else None
        if not isinstance(found, dict) or found.get("rope_type", "default") != "default":
            raise UserError(f"rope_parameters is {str(parameters)[:80]}, allowed: rope_type 'default' for each kind")
        theta = found.get("rope_theta", theta)
    return float(theta) if type(theta) is int else theta


def _describe(architecture: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    del leaves
    every, depth = architecture["global_every"], architecture["depth"]
    thetas = {kind: architecture[f"{kind}_theta"] for kind in _KINDS}
    return {
        "layer_types": _layer_types(every, depth),
        "rope_parameters": {
            _KINDS[kind]: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
        # As transformers 4 reads the same.
        "global_attn_every_n_layers": every,
        **{f"{kind}_rope_theta": theta for kind, theta in thetas.items()},
    }


MODERNBERT = Family(
    name="ModernBert",
    prefix="model.",
    classifies_tokens=False,  # its classes normalise what a head of ours reads
    sizes=SIZES,
    activation="hidden_activation",
    defaults={"epsilon": ("norm_eps", 1e-5), "window": ("local_attention", 128)},
    fixed={"attention_bias": False, "mlp_bias": False, "norm_bias": False},
    harmless=(
        *("initializer_cutoff_factor", "decoder_bias", "sparse_.*", "deterministic_flash_attn", "reference_compile"),
        *("repad_logits_with_grad", "layer_norm_eps", "position_embedding_type"),  # which nothing reads
    ),
    derive=_derive,
    derived=("layer_types", "global_attn_every_n_layers", "rope_parameters", "global_rope_theta", "local_rope_theta"),
    derives=("global_every", "global_theta", "local_theta"),
    describe=_describe,
    modules={
        "embeddings.tok_embeddings": "embeddings/word",
        "embeddings.norm": "embeddings/norm",
        "final_norm": "norm",
    },
    block="layers",
    block_modules={
        "attn.Wqkv": ("attention/query", "attention/key", "attention/value"),
        "attn.Wo": "attention/output",
        "attn_norm": "attention_norm",
        "mlp.Wi": ("mlp/up", "mlp/gate"),
        "mlp.Wo": "mlp/down",
        "mlp_norm": "mlp_norm",
    },
)
