"""Numbers into English words: the digits 4 8 1 3 -> "four thousand eight hundred thirteen"."""

import random
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import ConfigError, StageError
from pipeline.task import Forward, Split, Task

UNITS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

PAD, START, END = 0, 1, 2
WORDS = ["<pad>", "<start>", "<end>", *"0123456789", *UNITS, *TENS, "hundred", "thousand"]
VOCABULARY = {word: i for i, word in enumerate(WORDS)}
DIGITS = 6  # at most; so many tokens go in, and an end
SOURCE = DIGITS + 1
TARGET = 10  # "nine hundred ninety nine thousand nine hundred ninety nine" and an end
IGNORED = -100
MOST = 15_000  # examples


def task(train: int = 3000, validation: int = 200, test: int = 400, seed: int = 0) -> Task:
    """Translation of numbers from a thousand to a million, scored by exact match.

    Inputs are `input_ids` and `attention_mask` (7,) and `decoder_input_ids` (10,), targets are label ids (10,) with
    -100 after the end; all int64.

    Args:
        train, validation, test: how many numbers; none occurs twice, and test is the same whatever train is.
        seed: of the choice of numbers.
    """
    if train + validation + test > MOST:
        found = f"{train + validation + test} numbers"
        raise ConfigError(found, where="task", expected=f"at most {MOST}, or those of four digits would run out")
    fresh = numbers(seed)
    parts = [Split([example(number) for number in islice(fresh, size)]) for size in (test, validation, train)]
    return Task(
        train=parts[2],
        validation=parts[1],
        test=parts[0],
        loss=token_cross_entropy,
        score=exact_match,
        decode=greedy,
        as_target=as_target,
        preprocessing="digits and <end> as positions in WORDS, padded with <pad>; the mask is 1 up to <end>",
        show=digits_of,
    )


def token_cross_entropy(outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean cross-entropy a token of `logits` (N, T, words) against label ids (N, T), without those that are -100."""
    return F.cross_entropy(outputs["logits"].flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def exact_match(predictions: Tensor, targets: Tensor) -> Tensor:
    """1.0 where all ids of a prediction (N, T), padded after its end, are those of the labels (N, T), else 0.0."""
    return (predictions == targets.masked_fill(targets == IGNORED, PAD)).all(1).float()


def greedy(forward: Forward, inputs: Inputs) -> Tensor:
    """The likeliest next word at every step, up to the end: ids (N, T), padded after it.

    The decoder's input is always whole, since an exported graph has a fixed length; what stands in it after the step in
    question is hidden by the causal mask. The given `decoder_input_ids` lend their shape alone. What a model generates
    itself, as after export.seq2seq, is taken as it is.
    """
    buffer = torch.full_like(inputs["decoder_input_ids"], PAD)
    buffer[:, 0] = START
    ids = torch.full_like(buffer, PAD)
    ended = torch.zeros(len(buffer), dtype=torch.bool, device=buffer.device)
    for step in range(buffer.shape[1]):
        outputs = forward({**inputs, "decoder_input_ids": buffer})
        if "sequences" in outputs:
            return F.pad(outputs["sequences"], (0, ids.shape[1]), value=PAD)[:, : ids.shape[1]]
        ids[:, step] = outputs["logits"][:, step].argmax(-1).to(ids.device).masked_fill(ended, PAD)
        ended |= ids[:, step] == END
        if ended.all():
            break
        buffer[:, step + 1 : step + 2] = ids[:, step : step + 1]
    return ids


def as_target(inputs: Inputs, ids: Tensor) -> tuple[Inputs, Tensor]:
    """The training example that has a generated sequence as its target: (inputs, label ids (10,)).

    Args:
        inputs: one example's inputs; its `decoder_input_ids` are replaced.
        ids: (T',) as `greedy` or `generate` gives them: perhaps with the start in front, ignored after the first end.

    Raises:
        StageError: the sequence is empty or too long.
    """
    words = ids.tolist()
    words = words[1:] if words[:1] == [START] else words
    words = words[: words.index(END) + 1] if END in words else words
    if not 0 < len(words) <= TARGET:
        raise StageError(f"a sequence of {len(words)} tokens", where="as_target", expected=f"1 to {TARGET} tokens")
    gap = TARGET - len(words)
    shifted = [START, *words[:-1], *[PAD] * gap]
    return {**inputs, "decoder_input_ids": torch.tensor(shifted)}, torch.tensor(words + [IGNORED] * gap)


def example(number: int) -> tuple[Inputs, Tensor]:
    """A number's digits as inputs and its words as labels."""
    digits = [*(VOCABULARY[digit] for digit in str(number)), END]
    gap = [PAD] * (SOURCE - len(digits))
    source = {"input_ids": torch.tensor(digits + gap), "attention_mask": torch.tensor([1] * len(digits) + gap)}
    return as_target(source, torch.tensor([*(VOCABULARY[word] for word in in_words(number)), END]))


def digits_of(inputs: Inputs) -> str:
    """The number that one example asks for."""
    return "".join(WORDS[token] for token in inputs["input_ids"].tolist() if token not in (PAD, END))


def in_words(number: int) -> list[str]:
    """A number from 0 to 999,999 in English words."""
    if number < 20:
        return [UNITS[number]]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            more, rest = divmod(number, size)
            return [*in_words(more), name, *(in_words(rest) if rest else [])]
    tens, rest = divmod(number, 10)
    return [TENS[tens - 2], *([UNITS[rest]] if rest else [])]


def numbers(seed: int) -> Iterator[int]:
    """Numbers of four, five and six digits, each once, about as many of each length."""
    choose, seen = random.Random(seed), set[int]()
    while True:
        digits = choose.randint(4, DIGITS)
        number = choose.randrange(10 ** (digits - 1), 10**digits)
        if number not in seen:
            seen.add(number)
            yield number
