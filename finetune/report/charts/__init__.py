"""The charts of a report, one file for each question that they answer."""

from finetune.analysis.answer import Answer
from finetune.report.charts import arm, curve, effect, interaction, ranking, share, trial
from finetune.report.figure import Figure


def figures(answer: Answer) -> list[Figure]:
    """Returns all charts that can be drawn from an answer, in the order of the page."""
    return [
        *arm.figures(answer),
        *effect.figures(answer),
        *share.figures(answer),
        *ranking.figures(answer),
        *interaction.figures(answer),
        *curve.figures(answer),
        *interaction.divergence(answer),
        *trial.cost(answer),
        *trial.parallel(answer),
    ]
