"""A small encoder that knows the teacher's words: its token vectors are the teacher's, in fewer numbers."""

import torch
from pydantic import Field

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.stage import Stage


class NarrowWords(Stage):
    """A `Reader` whose token vectors are the principal components of the teacher's; all else is untrained.

    Train it with `distill.logits`, `student: {use: incoming}` and `teacher: baseline`.
    """

    reader: Reference = Field(description="its builder, with all arguments but `vocabulary`")
    scale: float = Field(default=0.5, gt=0, description="standard deviation of the token vectors that come out")

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The small encoder. Raises StageError where the teacher has no table of token vectors."""
        find = getattr(model.module, "get_input_embeddings", None)
        if find is None:
            raise StageError("the model has no table of token vectors", expected="an encoder of transformers")
        words = find().weight.detach()
        torch.manual_seed(ctx.seed)
        arguments = {**self.reader.arguments, "vocabulary": len(words)}
        made = TorchModel.build(self.reader.model_copy(update={"arguments": arguments}), model.example, model.axes)
        table = made.module.get_parameter("tokens.weight")
        with torch.no_grad():
            table.copy_(components(words, table.shape[1]))
            table.mul_(self.scale / table.std())
        return made


def components(words: torch.Tensor, count: int) -> torch.Tensor:
    """The first principal components of vectors (N, D), the largest first: (N, count)."""
    centred = words - words.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    return centred @ axes.flip(1)[:, :count]
