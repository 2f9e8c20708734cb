"""BERT and those that keep its blocks: RoBERTa, XLM-R, CamemBERT, DistilBERT, ELECTRA and MPNet."""

from finetune.models.weights.families.family import SIZES, Family, Head

_TYPED = SIZES | {"token_types": "type_vocab_size"}
_ABSOLUTE = {"position_embedding_type": "absolute"}
_EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings/word",
    "embeddings.position_embeddings": "embeddings/position",
    "embeddings.LayerNorm": "embeddings/norm",
}
_TYPED_EMBEDDINGS = _EMBEDDINGS | {"embeddings.token_type_embeddings": "embeddings/token_type"}
MLP = {"intermediate.dense": "mlp/up", "output.dense": "mlp/down", "output.LayerNorm": "mlp_norm"}
_BLOCK = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/output",
    "attention.output.LayerNorm": "attention_norm",
    **MLP,
}
_HEAD = Head("classifier.dense", "classifier.out_proj", odd=True)

BERT = Family(
    name="Bert",
    prefix="bert.",
    sizes=_TYPED,
    defaults={"epsilon": ("layer_norm_eps", 1e-12)},
    fixed=_ABSOLUTE,
    modules=_TYPED_EMBEDDINGS,
    block_modules=_BLOCK,
    head=Head("bert.pooler.dense", "classifier", odd=True),
    pools=True,
)
ROBERTA = BERT._replace(
    name="Roberta",
    prefix="roberta.",
    # Positions are counted from the one behind that of padding.
    defaults={"epsilon": ("layer_norm_eps", 1e-12), "padding": ("pad_token_id", 1)},
    head=_HEAD,
)
XLM_ROBERTA = ROBERTA._replace(name="XLMRoberta")
CAMEMBERT = ROBERTA._replace(name="Camembert")
ELECTRA = BERT._replace(
    name="Electra",
    prefix="electra.",
    sizes=_TYPED | {"embedding_width": "embedding_size"},
    harmless=("summary_.*",),  # of heads
    modules=_TYPED_EMBEDDINGS | {"embeddings_project": "embeddings/project"},
    head=_HEAD._replace(odd=False),
    pools=False,
)
MPNET = Family(
    name="MPNet",
    prefix="mpnet.",
    sizes=SIZES,
    defaults={"epsilon": ("layer_norm_eps", 1e-12)},
    # transformers counts from these, whatever config.json says.
    constants={"padding": 1},
    fixed={"pad_token_id": 1, "relative_attention_num_buckets": 32},
    modules=_EMBEDDINGS | {"encoder.relative_attention_bias": "relative"},
    block_modules={
        "attention.attn.q": "attention/query",
        "attention.attn.k": "attention/key",
        "attention.attn.v": "attention/value",
        "attention.attn.o": "attention/output",
        "attention.LayerNorm": "attention_norm",
        **MLP,
    },
    head=_HEAD,
    pools=True,
)
DISTILBERT = Family(
    name="DistilBert",
    prefix="distilbert.",
    sizes={
        "width": "dim",
        "depth": "n_layers",
        "heads": "n_heads",
        "mlp_width": "hidden_dim",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
    activation="activation",
    constants={"epsilon": 1e-12},
    harmless=("sinusoidal_pos_embds",),  # which sets the positions before training
    modules=_EMBEDDINGS,
    block="transformer.layer",
    block_modules={
        "attention.q_lin": "attention/query",
        "attention.k_lin": "attention/key",
        "attention.v_lin": "attention/value",
        "attention.out_lin": "attention/output",
        "sa_layer_norm": "attention_norm",
        "ffn.lin1": "mlp/up",
        "ffn.lin2": "mlp/down",
        "output_layer_norm": "mlp_norm",
    },
    head=Head("pre_classifier", "classifier", odd=False),
)
