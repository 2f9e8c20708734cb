"""DeBERTa-v3, a "deberta-v2" whose positions are relative ones alone, in buckets."""

from finetune.models.weights.families.bert_line import BERT, MLP
from finetune.models.weights.families.family import Head

DEBERTA = BERT._replace(
    name="DebertaV2",
    prefix="deberta.",
    sizes={**BERT.sizes, "buckets": "position_buckets"},
    defaults={"epsilon": ("layer_norm_eps", 1e-7)},
    fixed={"max_relative_positions": -1},  # as far as there are positions
    stated={
        "relative_attention": (True,),
        "share_att_key": (True,),
        "position_biased_input": (False,),
        "norm_rel_ebd": ("layer_norm",),
        "pos_att_type": (["p2c", "c2p"], ["c2p", "p2c"], "p2c|c2p", "c2p|p2c"),
    },
    harmless=("legacy",),  # of a head
    modules={
        "embeddings.word_embeddings": "embeddings/word",
        "embeddings.token_type_embeddings": "embeddings/token_type",
        "embeddings.LayerNorm": "embeddings/norm",
        "encoder.rel_embeddings": "relative",
        "encoder.LayerNorm": "relative_norm",
    },
    block_modules={
        "attention.self.query_proj": "attention/query",
        "attention.self.key_proj": "attention/key",
        "attention.self.value_proj": "attention/value",
        "attention.output.dense": "attention/output",
        "attention.output.LayerNorm": "attention_norm",
        **MLP,
    },
    head=Head("pooler.dense", "classifier", odd=False),
    pools=False,
)
