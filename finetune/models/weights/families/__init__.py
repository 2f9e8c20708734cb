"""Families of models that transformers names in config.json, by their "model_type"."""

from finetune.models.weights.families import (
    bert_line,
    convnext_table,
    deberta_table,
    dinov2_table,
    modernbert_table,
    resnet_table,
    tower_tables,
    vit_line,
)
from finetune.models.weights.families.family import Family

FAMILIES: dict[str, Family] = {
    "bert": bert_line.BERT,
    "roberta": bert_line.ROBERTA,
    "xlm-roberta": bert_line.XLM_ROBERTA,
    "camembert": bert_line.CAMEMBERT,
    "distilbert": bert_line.DISTILBERT,
    "electra": bert_line.ELECTRA,
    "mpnet": bert_line.MPNET,
    "modernbert": modernbert_table.MODERNBERT,
    "deberta-v2": deberta_table.DEBERTA,
    "vit": vit_line.VIT,
    "deit": vit_line.DEIT,
    "dinov2": dinov2_table.DINOV2,
    "dinov2_with_registers": dinov2_table.DINOV2_REGISTERS,
    "clip_vision_model": tower_tables.CLIP,
    "siglip_vision_model": tower_tables.SIGLIP,
    "convnext": convnext_table.CONVNEXT,
    "resnet": resnet_table.RESNET,
}
# Of files that describe two towers, that of images.
TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
