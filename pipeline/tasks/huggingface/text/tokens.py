"""Tokenizers: of the hub, of a folder, or made from the texts of train."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal

from pipeline.base.data.hub import check_reachable
from pipeline.errors import ConfigError, blame
from pipeline.tasks.huggingface.source import code, fingerprint, kept_in

if TYPE_CHECKING:
    from datasets import Dataset

Algorithm = Literal["bpe", "wordpiece"]  # the library's Unigram gives other scores each time

AT_ONCE = 1000  # texts that are read together
LONGEST = 10**6  # a tokenizer that knows no limit says a number far above
BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
PIECES = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
MASK = "[MASK]"
WORD = "\N{LOWER ONE EIGHTH BLOCK}"  # stands before a word


def opened(name: str) -> Any:
    """The fast tokenizer of that name or folder.

    Raises:
        ConfigError: there is none, it is a slow one, or it cannot pad.
    """
    where = f"tokenizer {name}"
    check_reachable(name, "models", "tokenizer")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        expected = "a name on the Hugging Face hub that can be reached, or a folder with a tokenizer.json"
        raise ConfigError(f"it cannot be read: {reason}", where=where, expected=expected) from error
    return checked(tokenizer, where)


def checked(tokenizer: Any, where: str) -> Any:
    """The tokenizer, if it is fast and can pad."""
    if not tokenizer.is_fast:
        raise ConfigError("there is only a slow one", where=where, expected="a fast one, with a tokenizer.json")
    if tokenizer.pad_token_id is None:
        fix = "Set `pad_token` in its tokenizer_config.json"
        raise ConfigError("it has no token to pad with", where=where, fix=fix)
    return tokenizer


def digest(tokenizer: Any) -> str:
    """Tells tokenizers apart by what they do, not by where they came from."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return fingerprint({**content, "padding": None, "truncation": None}, tokenizer.model_input_names)


def longest(tokenizer: Any, asked: int, key: str = "max_length") -> int:
    """The tokens that are asked for. Raises ConfigError where the tokenizer's model cannot take so many."""
    limit = tokenizer.model_max_length
    if asked > limit and limit < LONGEST:
        raise ConfigError(f"`{key}` is {asked}", expected=f"at most {limit}, as the tokenizer says")
    return asked


def trained(rows: "Dataset", columns: Sequence[str], size: int, algorithm: Algorithm, lowercase: bool) -> Any:
    """A tokenizer made from texts, the same for the same ones; kept on disk, and made once.

    Args:
        rows: of train.
        columns: those with the texts.
        size: tokens at most.
        algorithm: `wordpiece` marks a text as BERT's does, [CLS] and [SEP]; the others end it with </s>.
        lowercase: whether capitals are made small.

    Raises:
        ConfigError: the texts hold too many different characters for the size.
    """
    from transformers import PreTrainedTokenizerFast

    made_of = fingerprint(rows._fingerprint, list(columns), size, algorithm, lowercase, code())
    folder = kept_in() / f"tokenizer-{made_of}"
    if not (folder / "tokenizer.json").is_file():
        with blame(ConfigError, "vocabulary"):
            tokenizer = _train(_texts(rows, columns), size, algorithm, lowercase)
        names = BERT | {"mask_token": MASK} if algorithm == "wordpiece" else PIECES
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        input_names = [name for name in inputs if algorithm == "wordpiece" or name != "token_type_ids"]
        fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=input_names, **names)  # type: ignore[no-untyped-call]
        making = Path(mkdtemp(dir=folder.parent))
        fast.save_pretrained(making)
        with suppress(OSError):  # another process was faster
            making.rename(folder)
        rmtree(making, ignore_errors=True)
    return checked(PreTrainedTokenizerFast.from_pretrained(folder), str(folder))


def _texts(rows: "Dataset", columns: Sequence[str]) -> Iterator[list[str]]:
    for batch in rows.select_columns(list(columns)).iter(AT_ONCE):
        for name in columns:
            yield [text for text in batch[name] if text]


def _train(texts: Iterator[list[str]], size: int, algorithm: Algorithm, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pieces = algorithm == "wordpiece"
    tokenizer = Tokenizer(models.BPE(unk_token=PIECES["unk_token"]))
    small = [normalizers.Lowercase()] if lowercase else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *small])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    if pieces:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), tokenizer.pre_tokenizer])
    names = [*BERT.values(), MASK] if pieces else [*PIECES.values()]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if pieces:
        unk_token = BERT["unk_token"]
        tokenizer.model = models.WordPiece(_word_pieces(tokenizer.get_vocab(), names, size), unk_token=unk_token)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.post_processor = _ends(tokenizer, algorithm)
    return tokenizer


def _word_pieces(learned: dict[str, int], names: list[str], size: int) -> dict[str, int]:
    """Pieces of words as BERT's tokenizer marks them, ## before those inside a word, with their ids.

    The library's own trainer gives other ids each time, so they are learned as BPE with a mark before each word. Every
    character is there at the start of a word and inside.

    Args:
        learned: tokens with their ids, in the order in which they were learned.
        names: the special ones.
        size: tokens at most.
    """
    ordered = [token for token in sorted(learned, key=learned.__getitem__) if token not in names]
    characters = [token for token in ordered if len(token) == 1 and token != WORD]
    inner = [token.removeprefix(WORD) if token.startswith(WORD) else f"##{token}" for token in ordered]
    tokens = list(dict.fromkeys([*names, *characters, *(f"##{c}" for c in characters), *inner]))
    if len(names) + 2 * len(characters) > size:
        expected = f"at least {len(names) + 2 * len(characters)}, for the texts hold {len(characters)} characters"
        raise ConfigError(f"`vocabulary` is {size}", expected=expected)
    return {token: i for i, token in enumerate([token for token in tokens if token not in ("", "##")][:size])}


def _ends(tokenizer: Any, algorithm: Algorithm) -> Any:
    """What stands around a text and between two."""
    from tokenizers.processors import TemplateProcessing

    start, end = (BERT["cls_token"], BERT["sep_token"]) if algorithm == "wordpiece" else ("", PIECES["eos_token"])
    single = f"{start} $A {end}".strip()
    marks = [(name, tokenizer.token_to_id(name)) for name in (start, end) if name]
    return TemplateProcessing(single=single, pair=f"{single} $B:1 {end}:1", special_tokens=marks)
