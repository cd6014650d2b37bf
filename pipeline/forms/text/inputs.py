"""Which inputs of a model hold ids of tokens, and what goes with them."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.errors import ConfigError


class Text(BaseModel):
    """The names of the inputs that hold a text, or a pair of texts in one sequence.

    Args:
        ids, mask, types: as in `input_ids`, `attention_mask`, `token_type_ids`, (N, L) each.
        fixed: whether L must stay; else a batch grows where its texts do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    ids: str
    mask: str | None = None
    types: str | None = None
    fixed: bool = True


def texts_in(inputs: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]]) -> tuple[Text, ...]:
    """Which of a model's inputs hold ids, and what goes with them.

    Args:
        inputs: a batch. Ids are called `input_ids`, perhaps with more before or behind, or are the only input.
        axes: of the inputs, those whose length varies.

    Raises:
        ConfigError: there are no ids, or there are inputs that cannot follow them, such as a decoder's.
    """
    if decoder := [name for name in inputs if name.startswith("decoder_")]:
        problem = f"the model takes `{decoder[0]}`"
        expected = "a model that reads texts and writes none: the task's targets have the ids of all tokens"
        raise ConfigError(problem, expected=expected, fix="Leave prune.vocabulary out")
    names = [name for name in inputs if "input_ids" in name] or (list(inputs) if len(inputs) == 1 else [])
    texts = []
    for name in names:
        beside = [name.replace("input_ids", other) for other in ("attention_mask", "token_type_ids")]
        mask, types = (other if other in inputs and other != name else None for other in beside)
        texts.append(Text(ids=name, mask=mask, types=types, fixed=1 not in axes.get(name, {})))
    followed = {name for text in texts for name in (text.ids, text.mask, text.types)}
    others = [name for name in inputs if name not in followed]
    wrong = [name for name in names if inputs[name].is_floating_point() or inputs[name].ndim != 2]
    if others or wrong or not names:
        input_names = ", ".join(f"`{name}`" for name in others or wrong or inputs)
        expected = "`input_ids` of shape (N, L), and beside it `attention_mask`, `token_type_ids` or nothing"
        raise ConfigError(f"the model takes what cannot be translated: {input_names}", expected=expected)
    return tuple(texts)
