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
    """Nothing. A text that is too long would end in an index out of range, inside of torch.

    Args:
        module: a model for the task.
        task: one of ours says how long its texts may be; of another's the example is looked at.
        example: a small batch of its inputs (N, L).

    Raises:
        ConfigError: texts may have more tokens than the module has positions for.
    """
    longest = getattr(task, "longest", {})
    for name, (key, what) in LIMITS.items():
        seen = [value.shape[1] for given, value in example.items() if given.startswith(name) and value.ndim == 2]
        tokens = max([longest.get(key, 0), *seen])
        known = positions(module, decoder=name == DECODER_IDS if DECODER_IDS in example else None)
        if known is not None and tokens > known:
            raise ConfigError(
                f"the task's {what} have up to {tokens} tokens, and the model has {known} positions",
                fix=f"Set `{key}: {known}` in the task; what is longer is then cut"
                if longest
                else f"Let the task cut its {what}, such as by `truncation=True, max_length={known}` of the tokenizer",
            )
