"""Whether a task's texts are longer than what a model of `transformers` has positions for."""

from torch import nn

from pipeline.errors import ConfigError
from pipeline.model import Inputs
from pipeline.positions import positions
from pipeline.task import Task
from pipeline.tasks.huggingface.texts import IDS
from pipeline.tasks.huggingface.translation import DECODER_IDS

LIMITS = {IDS: ("max_length", "texts"), DECODER_IDS: ("max_target_length", "translations")}
"""For each input the key of the task that cuts it, and what it holds."""


def check_positions(module: nn.Module, task: Task, example: Inputs) -> None:
    """Raise ConfigError where texts may be longer than the model has positions for: torch would fail with a bad index.

    Args:
        module: a model for the task.
        task: one of ours says how long its texts may be; of another's the example is looked at.
        example: a small batch of its inputs (N, L).

    Raises:
        ConfigError: texts may have more tokens than the module has positions for.
    """
    longest = getattr(task, "longest", {})
    for name, (key, what) in LIMITS.items():
        lengths = [
            value.shape[1] for input_name, value in example.items() if input_name.startswith(name) and value.ndim == 2
        ]
        tokens = max([longest.get(key, 0), *lengths])
        limit = positions(module, decoder=name == DECODER_IDS if DECODER_IDS in example else None)
        if limit is not None and tokens > limit:
            raise ConfigError(
                f"the task's {what} have up to {tokens} tokens, and the model has {limit} positions",
                fix=f"Set `{key}: {limit}` in the task; what is longer is then cut"
                if longest
                else f"Let the task cut its {what}, such as by `truncation=True, max_length={limit}` of the tokenizer",
            )
