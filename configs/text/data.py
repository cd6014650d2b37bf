"""Short reviews from a grammar, in four grades: how the words are put together decides, not which words there are.

The rule: an adjective is good or bad, each "not" and each doubt turns it round, and "very" makes it strong unless it
was turned ("not very good" is plainly bad). Of two clauses the main one decides: the one after "but", or the one that
"although" does not introduce.
"""

import random
from collections.abc import Iterator
from itertools import islice

import torch

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.task import Split, Task, classification

Words = tuple[str, ...]

GRADES = ("very bad", "bad", "good", "very good")
GOOD = ("good", "great", "charming", "clever", "moving", "funny", "fresh", "warm")
BAD = ("bad", "awful", "boring", "clumsy", "stale", "silly", "cold", "dull")
SUBJECTS = ("plot", "cast", "music", "ending", "dialogue", "story", "acting", "pace")
VERBS = ("was", "seemed", "felt")
STRONG = ("very", "truly")
PLAIN = ("rather", "somewhat")
BELIEF = (("i", "think", "that"), ("we", "found", "that"))
DOUBT = (("i", "doubt", "that"), ("nobody", "thinks", "that"))
ASIDE = (("on", "monday"), ("at", "home"), ("this", "year"), ("last", "night"))

PAD, START = 0, 1
WORDS = {"the", "not", "but", "although", *GOOD, *BAD, *SUBJECTS, *VERBS, *STRONG, *PLAIN, *sum(BELIEF + DOUBT, ())}
VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<start>", *sorted(WORDS | {*sum(ASIDE, ())})])}
LONGEST = 24


def task(train: int = 2000, validation: int = 300, test: int = 600, length: int = LONGEST, seed: int = 0) -> Task:
    """Classification of sentences into the four `GRADES`, from `input_ids` and `attention_mask`, both (length,) int64.

    Args:
        train, validation, test: numbers of sentences; none occurs twice, and test is the same whatever train is.
        length: tokens that each sentence is padded to, `LONGEST` or more.
        seed: of the choices in the grammar.
    """
    if length < LONGEST:
        raise ConfigError(f"length is {length}", where="task", expected=f"at least {LONGEST}, the longest sentence")
    fresh = sentences(seed)
    parts = [[(encode(words, length), grade) for words, grade in islice(fresh, size)] for size in (test, validation)]
    rest = [(encode(words, length), grade) for words, grade in islice(fresh, train)]
    return classification(
        train=Split(rest),
        validation=Split(parts[1]),
        test=Split(parts[0]),
        labels=GRADES,
        preprocessing="<start> and words as positions in VOCABULARY, padded with <pad>; the mask is 1 where they stand",
        show=words_of,
    )


def encode(words: Words, length: int) -> Inputs:
    """A start and the words as ids, padded to `length`, and 1 where they stand."""
    ids = [START, *(VOCABULARY[word] for word in words)]
    gap = [PAD] * (length - len(ids))
    return {"input_ids": torch.tensor(ids + gap), "attention_mask": torch.tensor([1] * len(ids) + gap)}


def words_of(inputs: Inputs) -> str:
    """The sentence of one example, without start and padding."""
    words = list(VOCABULARY)
    return " ".join(words[token] for token in inputs["input_ids"].tolist() if token not in (PAD, START))


def sentences(seed: int) -> Iterator[tuple[Words, int]]:
    """Sentences with their grades, each once; there are more than a billion."""
    choose, seen = random.Random(seed), set[Words]()
    while True:
        words, grade = sentence(choose)
        if words not in seen:
            seen.add(words)
            yield words, grade


def sentence(choose: random.Random) -> tuple[Words, int]:
    """One sentence of one or two clauses, and its position in `GRADES`."""
    (main, grade), (other, _) = clause(choose), clause(choose)
    concession = ("although", *other)
    return choose.choice((main, main, (*other, "but", *main), (*concession, *main), (*main, *concession))), grade


def clause(choose: random.Random) -> tuple[Words, int]:
    """A clause such as "i doubt that the plot was not very good on monday", and its position in `GRADES`."""
    good = choose.random() < 0.5
    opening = choose.choice(((), (), *BELIEF, *DOUBT))
    negation = choose.choice(("", "not"))
    degree = choose.choice(("", *PLAIN, *STRONG, *STRONG))
    said = [*opening, "the", choose.choice(SUBJECTS), choose.choice(VERBS), negation, degree]
    said += [choose.choice(GOOD if good else BAD), *choose.choice(((), *ASIDE))]
    grade = grade_of(good, turns=(opening in DOUBT) + (negation != ""), strong=degree in STRONG)
    return tuple(word for word in said if word), grade


def grade_of(good: bool, turns: int, strong: bool) -> int:
    """The position in `GRADES` of a good or bad adjective that was turned round so often."""
    extreme = strong and turns == 0
    return 2 + extreme if good ^ (turns % 2 == 1) else 1 - extreme
