"""The form that an encoder-decoder is deployed in: three graphs in a folder, which Optimum generates with.

The encoder runs once, `decoder_model` makes the first token and the keys and values of the attention, and
`decoder_with_past_model` makes each further token from these. Weights that the graphs have in common lie once in
`weights.data`. That is smaller than Optimum's merged decoder, which shares between the two decoders alone: for a
Marian model of 5 million parameters 20.1 MB against 24.3 in fp32, and 36.4 for three files that share nothing.

Beside the graphs are config.json and generation_config.json, as Optimum's ORTModelForSeq2SeqLM reads them.
"""

import json
import logging
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pipeline.base.code.extras import expect_extra
from pipeline.base.quiet import muted
from pipeline.errors import ConfigError, ShrinkError
from pipeline.forms.description import load_rest, save_rest
from pipeline.forms.external_data import CONFIGS, DATA
from pipeline.forms.generate import GRAPHS, PAST, PRESENT, run

ENCODER, DECODER, WITH_PAST = GRAPHS
SEQUENCES = "sequences"
OF_DECODER = "decoder_"
"""What the names of inputs begin with that generating does not need: a decoder makes its own."""


@dataclass(frozen=True, eq=False)
class Seq2SeqOnnx:
    """A folder with the graphs of an encoder-decoder and a batch of inputs; generates on the CPU.

    Args:
        path: the folder.
        example: a small batch of inputs, as the task gives them.
    """

    path: Path
    example: dict[str, Tensor]
    form: ClassVar[str] = "seq2seq"
    vocabulary: ClassVar[None] = None
    """Its tokens are those of the task: none have left."""

    @property
    def graphs(self) -> list[Path]:
        """The files of encoder, decoder and decoder with past."""
        return [self.path / f"{name}.onnx" for name in GRAPHS]

    def files(self) -> list[Path]:
        """What is deployed: graphs, their weights, and what says how to generate."""
        return [*self.graphs, self.path / DATA, *(self.path / name for name in CONFIGS)]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What generation_config.json says."""
        return dict(json.loads((self.path / "generation_config.json").read_text()))

    @property
    def tokens(self) -> int:
        """How many are generated at most."""
        return int(self.settings["max_new_tokens"])

    @cached_property
    def generator(self) -> Any:
        """Optimum's ORTModelForSeq2SeqLM, opened on first use.

        Raises:
            ConfigError: Optimum is not installed.
            ShrinkError: another provider than the CPU's took over.
        """
        expect_extra("optimum", str(self.path))
        with hush():
            import onnxruntime
            from optimum.onnxruntime import ORTModelForSeq2SeqLM

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            model = ORTModelForSeq2SeqLM.from_pretrained(
                self.path,
                local_files_only=True,
                use_merged=False,
                use_cache=True,
                session_options=options,
                providers=["CPUExecutionProvider"],
            )
        if list(model.providers) != ["CPUExecutionProvider"]:
            raise ShrinkError(f"ONNX Runtime fell back to {model.providers}", where=str(self.path))
        return model

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """`sequences` (N, T): generated token ids without the start token, padded after their end; T is the longest's.

        The decoder's inputs are left aside.
        """
        with hush(), torch.no_grad():
            return {SEQUENCES: self.generator.generate(**self.feed(inputs))[:, 1:]}

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Of each token (N, T, words), where the decoder is given `decoder_input_ids` (N, T): by the first decoder."""
        with hush(), torch.no_grad():
            arguments = {**self.feed(inputs), "decoder_input_ids": inputs["decoder_input_ids"].cpu()}
            logits: Tensor = self.generator(**arguments, use_cache=False).logits
        return logits

    def feed(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the encoder takes for a batch of the task's inputs; where there is no mask, all is seen."""
        encoder_inputs = {name: value.cpu() for name, value in inputs.items() if not name.startswith(OF_DECODER)}
        if "input_ids" not in encoder_inputs:
            raise ConfigError("input `input_ids` is missing", where=str(self.path), expected="`input_ids` (N, S)")
        return {"attention_mask": torch.ones_like(encoder_inputs["input_ids"]), **encoder_inputs}

    def step_inputs(self, past: int) -> dict[str, dict[str, Tensor]]:
        """What each graph is fed for the first of the examples and one token, by the graph's name.

        Args:
            past: tokens that the decoder with past has seen, at least 1.
        """
        generator, one = self.generator, {name: value[:1] for name, value in self.feed(self.example).items()}
        hidden = _run(generator.encoder.session, one)["last_hidden_state"]
        start = torch.tensor([[int(self.settings["decoder_start_token_id"])]])
        first = {"input_ids": start, "encoder_hidden_states": hidden, "encoder_attention_mask": one["attention_mask"]}
        decoder_outputs = _run(generator.decoder.session, first)
        further = dict(first)
        for name, value in decoder_outputs.items():
            if name.startswith(PRESENT):  # of the encoder's tokens they are whole, of the decoder's there is one
                times = past if ".decoder." in name else 1
                further[name.replace(PRESENT, PAST, 1)] = value.repeat(1, 1, times, 1)
        input_names = {node.name for node in generator.decoder_with_past.session.get_inputs()}
        return {ENCODER: one, DECODER: first, WITH_PAST: {n: v for n, v in further.items() if n in input_names}}

    def save(self, directory: Path) -> None:
        """Copy the files, and write the example and model.json."""
        directory.mkdir(parents=True, exist_ok=True)
        for file in self.files():
            shutil.copyfile(file, directory / file.name)
        save_rest(directory, self.form, self.example)

    @classmethod
    def load(cls, directory: Path, folder: Path = Path()) -> Self:
        """Open what `save` wrote; `folder` is not needed and stands for symmetry with `TorchModel.load`."""
        return cls(directory, load_rest(directory, cls.form)[1])


def hush() -> AbstractContextManager[None]:
    """Without what transformers and Optimum say of their own defaults."""
    return muted(("transformers", "optimum"), logging.CRITICAL)


def _run(session: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = run(session, {name: value.numpy() for name, value in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in outputs.items()}
