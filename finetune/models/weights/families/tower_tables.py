"""The towers of images of CLIP and SigLIP, alone or beside their towers of texts."""

from finetune.models.weights.families.vit_line import OTHER

_ATTENTION = {
    "self_attn.q_proj": "attention/query",
    "self_attn.k_proj": "attention/key",
    "self_attn.v_proj": "attention/value",
    "self_attn.out_proj": "attention/output",
}
CLIP = OTHER._replace(
    name="CLIPVision",
    prefix="vision_model.",
    activation_left_out="quick_gelu",
    usual_activation="quick_gelu",
    sizes={},
    # Files may leave out what is as in the first of each family.
    defaults={
        "width": ("hidden_size", 768),
        "depth": ("num_hidden_layers", 12),
        "heads": ("num_attention_heads", 12),
        "mlp_width": ("intermediate_size", 3072),
        "patch_size": ("patch_size", 32),
        "epsilon": ("layer_norm_eps", 1e-5),
    },
    fixed={},
    harmless=("projection_dim",),  # of what follows
    left_out=(r"text_model\..*", r"(text|visual)_projection\..*", "logit_(scale|bias)"),
    inside="vision_config",
    poolings=("first",),
    pools=False,
    image_head="",
    modules={
        "embeddings.patch_embedding": "embeddings/patch",
        "pre_layrnorm": "embeddings/norm",
        "post_layernorm": "norm",
    },
    arrays={
        "embeddings.class_embedding": "embeddings/class_token",
        "embeddings.position_embedding.weight": "embeddings/position",
    },
    block="encoder.layers",
    block_modules={
        **_ATTENTION,
        "layer_norm1": "attention_norm",
        "layer_norm2": "mlp_norm",
        "mlp.fc1": "mlp/up",
        "mlp.fc2": "mlp/down",
    },
)
_POOLER: dict[str, str | tuple[str, ...]] = {
    "head.attention.in_proj": ("pooler/attention/query", "pooler/attention/key", "pooler/attention/value"),
    "head.attention.out_proj": "pooler/attention/output",
    "head.layernorm": "pooler/norm",
    "head.mlp.fc1": "pooler/mlp/up",
    "head.mlp.fc2": "pooler/mlp/down",
}
SIGLIP = CLIP._replace(
    name="SiglipVision",
    activation_left_out="gelu_pytorch_tanh",
    usual_activation="gelu_pytorch_tanh",
    defaults={**CLIP.defaults, "patch_size": ("patch_size", 16), "epsilon": ("layer_norm_eps", 1e-6)},
    constants={"class_tokens": 0},
    fixed={"vision_use_head": True},
    harmless=(),
    modules={"embeddings.patch_embedding": "embeddings/patch", "post_layernorm": "norm", **_POOLER},
    arrays={"embeddings.position_embedding.weight": "embeddings/position", "head.probe": "pooler/probe"},
)
