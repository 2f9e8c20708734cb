"""Families of models that transformers names in config.json, by their "model_type"."""

from finetune.models.weights.families import bert_line, deberta_table, modernbert_table
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
}
