"""One generation of a fixed number of tokens, as the children time it; imports no more than ONNX Runtime and numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.forms.generate import greedy

DECODER = "decoder_"
IDS = "decoder_input_ids"

Step = Callable[[], object]


def cached_step(sessions: list[Any], inputs: dict[str, Any], how: dict[str, Any]) -> Step:
    """A generation by encoder, decoder and decoder with past.

    Args:
        sessions: of the three.
        inputs: of the encoder.
        how: `tokens` to generate, always so many; `settings` as generation_config.json has them.
    """
    return lambda: greedy(sessions, how["settings"], inputs, how["tokens"], stop=False)


def uncached_step(session: Any, inputs: dict[str, Any], how: dict[str, Any]) -> Step:
    """A generation by one graph that is given the whole prefix at every step.

    A graph of a fixed width is given all of it, padded; one of any width no more than the prefix.
    """
    widths = [node.shape[1] for node in session.get_inputs() if node.name == IDS]
    if not widths:
        raise SystemExit(f"the graph has no input {IDS}, so it cannot generate")
    outputs = [node.name for node in session.get_outputs()]
    logits = "logits" if "logits" in outputs else outputs[0]
    start, pad = (how["settings"][f"{name}_token_id"] for name in ("decoder_start", "pad"))
    width = widths[0] if isinstance(widths[0], int) else 0
    tokens = min(how["tokens"], width or how["tokens"])

    def step() -> Any:
        ids = np.full((len(inputs[IDS]), max(width, tokens + 1)), pad, np.int64)
        ids[:, 0] = start
        for place in range(tokens):
            length = width or place + 1
            feeds = {name: value[:, :length] if name.startswith(DECODER) else value for name, value in inputs.items()}
            (scores,) = session.run([logits], feeds | {IDS: ids[:, :length]})
            if place + 1 < ids.shape[1]:
                ids[:, place + 1] = scores[:, place].argmax(-1)
        return ids

    return step
