"""Token ids as JSON: python predict.py INPUTS, an .npz with input_ids (N, S) and attention_mask, all int64."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
GRAPHS = ("encoder_model", "decoder_model", "decoder_with_past_model")
PAST, PRESENT = "past_key_values.", "present."
HEEDED = {"pad_token_id", "eos_token_id", "decoder_start_token_id", "max_new_tokens", "forced_bos_token_id"}
HEEDED |= {"forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"}
WITHOUT_EFFECT = {"bos_token_id", "use_cache", "max_length", "early_stopping", "length_penalty"}
"""On a greedy search."""


def unheeded(settings: dict[str, Any]) -> list[str]:
    """What a generation_config.json asks for and `greedy` does not do."""
    plain = {"num_beams": 1, "num_beam_groups": 1, "do_sample": False}
    rest = {name: value for name, value in settings.items() if name not in HEEDED | WITHOUT_EFFECT}
    names = [name for name, value in rest.items() if value is not None and value != plain.get(name)]
    return names + ["bad_words_ids"] * any(len(word) > 1 for word in settings.get("bad_words_ids") or [])


def open_graphs(folder: Path) -> list[Any]:
    """The sessions of encoder, decoder and decoder with past, on the CPU."""
    import onnxruntime

    places = [folder / f"{name}.onnx" for name in GRAPHS]
    return [onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"]) for place in places]


def greedy(graphs: list[Any], settings: dict[str, Any], inputs: dict[str, Any], longest: int, stop: bool = True) -> Any:
    """The likeliest next token at every step: ids (N, T), padded after an end; T is at most `longest`.

    Args:
        graphs: as `open_graphs` gives them.
        settings: what generation_config.json says.
        inputs: `input_ids` (N, S) and `attention_mask` (N, S).
        longest: tokens at most.
        stop: end where all sequences have ended; without it the work is the same whatever comes out.
    """
    encoder, first, further = graphs
    ids = np.full((len(inputs["input_ids"]), longest), settings["pad_token_id"], np.int64)
    token = np.full_like(ids[:, :1], settings["decoder_start_token_id"])
    ended = np.zeros(len(ids), bool)
    hidden = run(encoder, inputs)["last_hidden_state"]
    decoder_inputs = {"encoder_hidden_states": hidden, "encoder_attention_mask": inputs["attention_mask"]}
    for step in range(longest):
        outputs = run(further if step else first, {"input_ids": token, **decoder_inputs})
        decoder_inputs |= {
            PAST + name.removeprefix(PRESENT): v for name, v in outputs.items() if name.startswith(PRESENT)
        }
        best = choose(outputs["logits"][:, -1], settings, step, longest)
        ids[:, step] = np.where(ended, settings["pad_token_id"], best)
        ended |= np.isin(best, settings["eos_token_id"])
        if stop and ended.all():
            return ids[:, : step + 1]
        token = ids[:, step : step + 1]
    return ids


def choose(logits: Any, settings: dict[str, Any], step: int, longest: int) -> Any:
    """The best token (N,) of logits (N, words), but for those that are forced or forbidden."""
    forced = settings.get("forced_eos_token_id") if step == longest - 1 else None
    forced = settings.get("forced_bos_token_id") if step == 0 and forced is None else forced
    if forced is not None:
        return np.full(len(logits), forced[0] if isinstance(forced, list) else forced)
    ends = np.atleast_1d(settings["eos_token_id"])
    never = [word[0] for word in settings.get("bad_words_ids") or [] if word[0] not in ends]
    never += settings.get("suppress_tokens") or []
    never += (settings.get("begin_suppress_tokens") or []) if step == 0 else []
    logits[:, never] = -np.inf
    return logits.argmax(-1)


def run(session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A graph's outputs by name, for those inputs that it takes."""
    names = [node.name for node in session.get_outputs()]
    feed = {node.name: inputs[node.name] for node in session.get_inputs()}
    return dict(zip(names, session.run(names, feed), strict=True))


def main() -> None:
    """Read inputs, write what is generated."""
    inputs = dict(np.load(sys.argv[1])) if len(sys.argv) == 2 else sys.exit(__doc__)
    if "input_ids" not in inputs:
        sys.exit(f"the inputs are {sorted(inputs)}; expected input_ids and attention_mask")
    inputs.setdefault("attention_mask", np.ones_like(inputs["input_ids"]))
    for name in ("input_ids", "attention_mask"):
        if inputs[name].dtype != np.int64 or inputs[name].shape != inputs["input_ids"].shape or inputs[name].ndim != 2:
            sys.exit(f"{name} is {inputs[name].dtype} {list(inputs[name].shape)}; expected int64, both (N, S)")
    settings = json.loads((HERE / "generation_config.json").read_text())
    sequences = greedy(open_graphs(HERE), settings, inputs, settings["max_new_tokens"])
    sys.stdout.write(json.dumps({"sequences": sequences.tolist()}) + "\n")


if __name__ == "__main__":
    main()
