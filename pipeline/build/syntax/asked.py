"""What people ask for by other names, and what does it here or is nearest to it."""

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

Text = TypeVar("Text")

_AWARE = "`quantize.aware` trains with the rounding of the deployed file, at 2 to 8 bits"
_STATIC = "`quantize.static` makes weights and activations int8 after training, `quantize.dynamic` weights alone"
_HALF = (
    "`quantize.half` stores weights in 16 bits, fp16 or bf16. `precision: bf16` or `fp16` of a training stage is of "
    "its arithmetic, and the runtime {use: openvino, precision: native} computes so where the CPU can"
)
_BLOCKS = "`quantize.weights` makes weights of products and tables 8, 4 or 2 bits and leaves activations in fp32"
_LOGITS = "`distill.logits` is the usual distillation"
_HEADS = "`prune.transformers` removes whole attention heads, feed-forward channels and the hidden width"
_LOW_RANK = "`prune.lowrank` puts two or three small layers in the place of a large one"
_SPARSE = (
    "`prune.weights` makes single weights zero: `sparsity: 0.5`, or `pattern: 2:4`. `quantize.pack` makes fewer bytes "
    "of that; no kernel for CPUs is faster for it, as all are behind `prune.channels`"
)
_SHARE = "`macs`, `params`, `channels`, `size` or `latency` of `prune.channels` is the share that is kept"
_SEARCH = (
    "no stage searches. `strategies:` in place of `stages:` and `shrink compare` say which of several chains to take, "
    "and `--set` changes a setting"
)
_TUNE = "`train.supervised` trains on the labels; `recovery: {epochs: 5}` of `prune.channels` does it after pruning"
_PACK = "`quantize.pack` stores each weight in as few bits as it needs"
_SCORE = (
    "`score: {min: 0.9}` of a budget is of the score itself, `retention: {min: 0.97}` the share of the baseline's "
    "that is kept, and `drop: {max: 0.01}` how far it may fall"
)
_SIZE = "`size: {max: 0.25, of: baseline}` of a budget is a share of the baseline's, `size: 40 kB` absolute"
_TIME = "`benchmark.latency` measures it"
_LAYERS = "`prune.layers` leaves out whole blocks; a `student` with `{shrink_of: teacher, layers: 3}` has fewer layers"

ASKED = {
    "qat": _AWARE,
    "lsq": _AWARE,
    "fake_quant": _AWARE,
    "ptq": _STATIC,
    "int8": _STATIC,
    "w8a8": _STATIC,
    "quantization": _STATIC,
    "int4": f"{_BLOCKS}. For convolutions `quantize.aware` or `quantize.static` with `bits: 4`, then `quantize.pack`",
    "int2": _BLOCKS,
    "w4a16": _BLOCKS,
    "weight_only": _BLOCKS,
    "matmulnbits": _BLOCKS,
    "gptq": "`quantize.weights` with `method: gptq`, or `quantize.static` with `rounding: adaptive`",
    "hqq": "`quantize.weights` with `method: hqq`",
    "k_quant": "`quantize.weights`, whose method it is",
    "ternary": "`quantize.aware` or `quantize.static` with `bits: ternary`, then `quantize.pack`",
    "fp16": _HALF,
    "half": _HALF,
    "float16": _HALF,
    "bf16": _HALF,
    "bfloat16": _HALF,
    "amp": "`precision: bf16` or `fp16` of a training stage",
    "heads": _HEADS,
    "head": _HEADS,
    "attention_heads": _HEADS,
    "depth": _LAYERS,
    "blocks": _LAYERS,
    "shortgpt": _LAYERS,
    "layer_drop": _LAYERS,
    "lowrank": _LOW_RANK,
    "svd": _LOW_RANK,
    "tucker": _LOW_RANK,
    "lora": "no stage trains adapters. `prune.lowrank` makes the weights themselves of low rank",
    "factorize": _LOW_RANK,
    "unstructured": _SPARSE,
    "magnitude": "`prune.channels` with `importance: magnitude`, or `prune.weights` of single weights",
    "taylor": "`prune.channels` with `importance: taylor`",
    "sparsity": _SPARSE,
    "sparse": _SPARSE,
    "n:m": _SPARSE,
    "2:4": _SPARSE,
    "semi_structured": _SPARSE,
    "wanda": "`prune.weights` with `method: wanda`",
    "sparsegpt": "`prune.weights` with `method: sparsegpt`",
    "structured": "`prune.channels` removes whole channels",
    "filters": "`prune.channels` removes whole channels",
    "pruning": "`prune.channels`, `prune.layers`, `prune.lowrank`, `prune.vocabulary`, or `prune.weights` for zeros",
    "search": _SEARCH,
    "nas": _SEARCH,
    "tune": _SEARCH,
    "optuna": _SEARCH,
    "finetune": _TUNE,
    "recovery": _TUNE,
    "retrain": _TUNE,
    "kd": _LOGITS,
    "distillation": _LOGITS,
    "dkd": "`distill.logits` with `objective: dkd`",
    "dist": "`distill.logits` with `objective: dist`",
    "rkd": "`distill.relations` with `kind: examples`",
    "fitnets": "`distill.features`",
    "hints": "`distill.features`",
    "born_again": "`distill.itself`",
    "onnx": "`export.onnx`",
    "openvino": "`benchmark.latency` with `runtimes: [openvino]`, which reads the file of `export.onnx`",
    "tensorrt": "`benchmark.latency` with `runtimes: [tensorrt]`, which reads the file of `export.onnx`",
    "executorch": "`benchmark.latency` with `runtimes: [executorch]`, then `shrink package RUN --runtime executorch`",
    "tflite": "`benchmark.latency` with `runtimes: [litert]`, then `shrink package RUN --runtime litert`",
    "ncnn": "`benchmark.latency` with `runtimes: [ncnn]`, then `shrink package RUN --runtime ncnn`",
    "mnn": "`benchmark.latency` with `runtimes: [mnn]`, then `shrink package RUN --runtime mnn`",
    "torchscript": "no stage writes TorchScript. `export.onnx` is the file to deploy",
    "huffman": _PACK,
    "pack": _PACK,
    "compress": _PACK,
    "tokens": "`prune.vocabulary` removes the tokens that the training data does not use",
}
"""Methods, for stages and keys: by the word, in lower case and however it is written together."""

MEASURED = {"latency": _TIME, "speed": _TIME, "memory": _TIME}
"""For stages alone."""

KEYS = {
    "ratio": ("macs", _SHARE),
    "amount": ("macs", _SHARE),
    "lr": ("learning_rate", "it is called `learning_rate`"),
    "alpha": ("hard_weight", "`hard_weight` is the weight of the loss of the labels"),
    "tau": ("temperature", "it is called `temperature`"),
    "accuracy": ("retention", _SCORE),
    "f1": ("retention", _SCORE),
    "speedup": ("latency", "`latency: {max: 0.5}` of a budget is a ratio to the baseline's, `latency: 5 ms` a time"),
    "compression": ("size", _SIZE),
    "compression_ratio": ("size", _SIZE),
}
"""For keys alone, where the other key is one of those that there are."""

_PLAIN = re.compile("[-_ ]")


def answer(use: str) -> str:
    """The end of a message about a stage that there is not: what does it; empty where nothing is known of it.

    It may have the name of a family before it.
    """
    text = _by_word({**ASKED, **MEASURED}, use.rpartition(".")[2])
    return f": {text}" if text else ""


def answer_key(name: str, keys: Collection[str]) -> str:
    """The same of a key that is none of these."""
    key, text = _by_word(KEYS, name) or ("", "")
    hint = text if key in keys else _by_word(ASKED, name)
    return f": {hint}" if hint else ""


def _by_word(texts: Mapping[str, Text], name: str) -> Text | None:
    word = _PLAIN.sub("", name.lower())
    return next((text for known, text in texts.items() if _PLAIN.sub("", known) == word), None)
