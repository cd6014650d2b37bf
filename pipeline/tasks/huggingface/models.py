"""Models of `transformers`, built from their configuration alone: what a saved model is rebuilt with.

Nothing here downloads or reads weights; pretrained.py does, once. Code that comes with a model is never run.
"""

import json
from collections.abc import Mapping
from functools import cache, wraps
from inspect import signature
from typing import Any

import torch
from torch import nn

from pipeline.base.use import nearest
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.settings import Kind
from pipeline.tasks.huggingface.text.similarity import SentencePair

CLASSES: dict[Kind, str] = {
    "image_classification": "AutoModelForImageClassification",
    "text_classification": "AutoModelForSequenceClassification",
    "audio_classification": "AutoModelForAudioClassification",
    "text_regression": "AutoModelForSequenceClassification",
    "similarity": "AutoModel",
    "translation": "AutoModelForSeq2SeqLM",
}
PLAIN: dict[str, Any] = {
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "torchscript": False,
    "problem_type": None,
    "use_cache": False,  # an exported graph has none
}
OF_THEIR_FILE = ("architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "label2id")
EAGER = {"attn_implementation": "eager"}  # exports to plain matrix products and softmax
CACHES = ("past_key_values", "cache")
"""What versions of transformers call the keys and values that a decoder has seen, 4 and late ones of 5."""


def network(kind: Kind, config: dict[str, Any], labels: int | None = None, **changes: Any) -> nn.Module:
    """An untrained model that gives `logits` alone, or for pairs of sentences `similarity`.

    Args:
        kind: what it is for, as `task: {use: huggingface, kind: ...}`.
        config: `model_type`, such as bert, and what differs from that type's defaults.
        labels: how many classes; 1 for regression.
        changes: put over the configuration, so that `student: {shrink_of: teacher, hidden_size: 64}` works.

    Raises:
        ConfigError: there is no such type of model, or it has no such setting, or none for this kind.
    """
    configuration = configured(config, {**changes, **({"num_labels": labels} if labels else {})})
    module = model_class(kind).from_config(configuration, **EAGER, **_without_pooler(kind, configuration))
    if kind == "similarity":
        return SentencePair(module)
    if configuration.is_encoder_decoder:
        _give_logits_alone(module)
    return module  # type: ignore[no-any-return]


def configured(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """The configuration with these changes. Raises ConfigError for a type or a name that there is not."""
    from transformers import CONFIG_MAPPING

    model_type = config.get("model_type")
    model_types = sorted(CONFIG_MAPPING.keys())
    if model_type not in model_types:
        hint = nearest(str(model_type), model_types)
        raise ConfigError(f"`model_type` is {model_type}{hint}", where="config", expected="a type of transformers")
    made_by = CONFIG_MAPPING[model_type]
    plain = made_by()
    for name in (*config, *changes):
        if not hasattr(plain, name):
            names = sorted(name for name in plain.to_dict())
            raise ConfigError(f"{model_type} has no setting `{name}`{nearest(name, names)}", where="config")
    # Values depend on each other, such as the number of heads on the width: they are set together.
    renamed = {plain.attribute_map.get(name, name): value for name, value in changes.items()}
    own = {plain.attribute_map.get(name, name): value for name, value in config.items()}
    if "num_labels" in renamed:
        own.pop("id2label", None)
    return made_by.from_dict({**own, **renamed, **PLAIN})


def plain_config(configuration: Any) -> dict[str, Any]:
    """A configuration as JSON: all that says how a model is built, without where it came from.

    What its type does not know, as old files may have, and what no type of model changes is left out.
    """
    from transformers import PretrainedConfig

    usual, own, settings = (_json(each) for each in (PretrainedConfig(), type(configuration)(), configuration))
    config = {name: value for name, value in settings.items() if name in own and name not in (*OF_THEIR_FILE, *PLAIN)}
    config = {name: value for name, value in config.items() if not value == own[name] == usual.get(name, ...)}
    return config | {"model_type": configuration.model_type}


def _json(configuration: Any) -> dict[str, Any]:
    return dict(json.loads(configuration.to_json_string(use_diff=False)))


def model_class(kind: Kind) -> Any:
    """The class of `transformers` that makes models for a kind. Raises ConfigError where there is no such kind."""
    import transformers

    if kind not in CLASSES:
        raise ConfigError(f"`kind` is {kind}{nearest(kind, list(CLASSES))}")
    return getattr(transformers, CLASSES[kind])


def _without_pooler(kind: Kind, configuration: Any) -> dict[str, Any]:
    """For an encoder whose tokens' vectors are averaged: no layer that nothing reads."""
    from transformers import MODEL_MAPPING

    if kind != "similarity" or type(configuration) not in MODEL_MAPPING:
        return {}
    encoder_class: Any = MODEL_MAPPING[type(configuration)]
    named = signature(encoder_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in named else {}


def _give_logits_alone(module: Any) -> None:
    """Make an encoder-decoder give `logits`, and the cache where `generate` asks for one, in place."""
    from transformers import GenerationConfig

    base: Any = type(module)
    module.__class__ = _of_logits(base)
    config = module.config
    if module.can_generate():
        # What greedy decoding by the forward does, whatever a file says beside the weights.
        ids = {name: getattr(config, name) for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
        unwanted = [[config.pad_token_id]]
        module.generation_config = GenerationConfig(**ids, bad_words_ids=unwanted, use_cache=True)  # type: ignore[no-untyped-call]


@cache
def _of_logits(base: Any) -> Any:
    """A class like `base` whose forward leaves out what no one scores."""
    from transformers.modeling_outputs import Seq2SeqLMOutput

    @wraps(base.forward)
    def forward(self: Any, *args: Any, **named: Any) -> Seq2SeqLMOutput:
        ids = named.get("decoder_input_ids")
        if ids is not None and all(named.get(name) is None for name in (*CACHES, "decoder_attention_mask")):
            # The library's own default is left out while a graph is traced, and its mask is then one too wide.
            named["decoder_attention_mask"] = torch.ones_like(ids)
        outputs = base.forward(self, *args, **named)
        return Seq2SeqLMOutput(**{name: value for name, value in outputs.items() if name in ("logits", *CACHES)})

    named = {"forward": forward, "__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (base,), named)
