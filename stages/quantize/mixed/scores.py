"""The scores on validation that decide what keeps a limit."""

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.batching import batches_for
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import Model
from stages.quantize.mixed.keep import Keep


def scores_of(model: Model, ctx: Context) -> Scores:
    """The scores (N,) of a model on the whole of validation."""
    batch = batches_for(model, ctx.task, ctx.batch).batch
    return scores_on_validation(model, ctx.task, batch, lambda steps: None).numpy()


def reference_of(keep: Keep, incoming: Model, ctx: Context) -> Scores:
    """The scores (N,) that a limit is a share of. Raises StageError where there is no such share, or no baseline."""
    model: Model | None = incoming if keep.of == "incoming" else ctx.baseline
    if model is None:
        raise StageError("there is no baseline yet", fix="Set `of: incoming` under `keep`")
    scores = scores_of(model, ctx)
    if keep.estimate(scores, scores, ctx.seed) is None:
        problem = "scores are not on a ratio scale, so there is no retention"
        raise StageError(problem, fix="Set `drop` under `keep` instead")
    return scores
