"""Export of encoder-decoders through Optimum: encoder, decoder, decoder with past."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import onnx
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.context import Context, Preview
from pipeline.errors import StageError, blame
from pipeline.forms.deployed.seq2seq import SEQUENCES, Seq2SeqOnnx, hush
from pipeline.forms.external_data import save_together
from pipeline.forms.generate import GRAPHS
from pipeline.forms.graph import strip
from pipeline.model import TorchModel
from pipeline.stage import Stage
from stages.export.hugging_face import expect, export, library_model, misfits, plain
from stages.export.onnx import difference

BATCH_SIZE = 32
TASK = "text2text-generation-with-past"


class Seq2SeqExport(Stage):
    """Encoder, decoder and decoder with past as ONNX files that generate, checked against the torch model.

    Choose it for translation and the like, where a single file without a cache would compute each prefix anew. What
    follows is measured by what the files generate: a task's `decode` sees `sequences`, token ids.

    Example:
        - {use: export.seq2seq, beams: 1, max_tokens: 64}
    """

    extra: ClassVar[str] = "optimum"

    beams: int = Field(1, ge=1, description="width of the beam search; 1 is greedy")
    max_tokens: int | None = Field(
        None, ge=1, description="tokens to generate at most; as many as the longest target has unless given"
    )
    opset: int = Field(18, ge=14, le=20, description="ONNX operator set")
    tolerance: float = Field(
        1e-4, gt=0, description="largest difference |onnx - torch| / (1 + |torch|) of logits allowed"
    )
    agreement: float = Field(0.9, ge=0, le=1, description="smallest share of generated sequences equal to torch's")
    examples: int = Field(64, gt=0, description="validation examples to compare on")

    def timeable(self) -> bool:
        """A beam search is not timed."""
        return self.beams == 1

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse a model that is no encoder-decoder of transformers."""
        expect(tuple(before), preview, generates=True)
        return ()

    def run(self, model: TorchModel, ctx: Context) -> Seq2SeqOnnx:
        """The files; StageError when they give other logits or generate other tokens than the torch model."""
        transformers_model = library_model(model, generates=True)
        self._set_generation(transformers_model, self.max_tokens or widest(ctx))
        path = ctx.directory / "seq2seq"
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=ctx.directory, prefix="optimum-") as folder:
            traced = copy.deepcopy(transformers_model)  # the exporter changes its configuration
            export(traced, Path(folder), TASK, self.opset)
            protos = {name: onnx.load(Path(folder) / f"{name}.onnx") for name in GRAPHS}
        for proto in protos.values():
            strip(proto)
        save_together(protos, path)
        (path / "config.json").write_text(plain(traced.config))
        (path / "generation_config.json").write_text(plain(transformers_model.generation_config))
        exported = Seq2SeqOnnx(path, model.example)
        if names := misfits(transformers_model):
            ctx.warn(f"{len(names)} weights, {names[0]} the first, have other shapes than config.json says")
        self._check_parity(compare(model, transformers_model, exported, ctx, self.examples), ctx)
        return exported

    def _set_generation(self, transformers_model: Any, tokens: int) -> None:
        """How to generate, in its generation_config: as the model says but for what the settings say."""
        config = transformers_model.generation_config
        missing = [n for n in ("pad_token_id", "decoder_start_token_id") if getattr(config, n, None) is None]
        if missing:
            fix = f"Set {' and '.join(missing)} in the model's generation_config"
            raise StageError("the model does not say how to generate", expected=", ".join(missing), fix=fix)
        config.num_beams, config.do_sample, config.use_cache = self.beams, False, True
        config.max_length, config.max_new_tokens = 20, tokens  # 20 is the library's own: none is set
        config.temperature, config.top_k, config.top_p = 1.0, 50, 1.0  # the same: of sampling, which there is none of

    def _check_parity(self, parity: dict[str, Any], ctx: Context) -> None:
        ctx.report("parity", parity)
        if not parity["largest_difference"] <= self.tolerance:
            problem = f"the decoder's logits differ from torch's by {parity['largest_difference']:.2e}"
            fix = "Look at what the module does beside its transformers model, or raise `tolerance`"
            raise StageError(problem, expected=f"at most {self.tolerance:.0e}", fix=fix)
        if parity["equal_sequences"] < self.agreement:
            problem = f"{parity['equal_sequences']:.1%} of the sequences are those that torch generates"
            fix = "Train it longer, for rounding decides between tokens that are as likely, or lower `agreement`"
            raise StageError(problem, expected=f"at least {self.agreement:.1%}", fix=fix)


def widest(ctx: Context) -> int:
    """How many tokens the longest target has, as the `decoder_input_ids` of calibration and validation tell."""
    width = 0
    for split in (ctx.calibration, ctx.validation):
        for batch in split.loader(BATCH_SIZE):
            width = max([width, *(v.shape[1] for name, v in batch.inputs.items() if name == "decoder_input_ids")])
    if not width:
        fix = "Set `max_tokens`, or have the task give `decoder_input_ids`"
        raise StageError("nothing says how many tokens to generate", fix=fix)
    return width


def compare(
    model: TorchModel, transformers_model: Any, exported: Seq2SeqOnnx, ctx: Context, examples: int
) -> dict[str, Any]:
    """The largest |onnx - torch| / (1 + |torch|) of teacher-forced logits, and the share of equal generated sequences.

    Logits at padding, where `decoder_attention_mask` is 0, are not compared.

    Args:
        model: as the task uses it.
        transformers_model: the library's model in it, which generates.
        exported: the files.
        ctx: whose validation split is used.
        examples: how many at most.
    """
    chosen = ctx.validation.select(list(range(min(examples, len(ctx.validation)))))
    largest, same, pad = 0.0, 0, int(exported.settings["pad_token_id"])
    with ctx.progress("comparing with torch", -(-len(chosen) // BATCH_SIZE)) as advance:
        for batch in chosen.loader(BATCH_SIZE):
            if "decoder_input_ids" in batch.inputs:
                outputs, mask = model.predict(batch.inputs), batch.inputs.get("decoder_attention_mask")
                theirs = outputs.get("logits", next(iter(outputs.values())))
                largest = max(largest, difference(exported.logits(batch.inputs), theirs, mask))
            generated = _generated(transformers_model, exported, batch.inputs)
            sequence_pair = exported.predict(batch.inputs)[SEQUENCES], generated
            # As wide as any may be.
            onnx_tokens, torch_tokens = (F.pad(s, (0, exported.tokens - s.shape[1]), value=pad) for s in sequence_pair)
            same += int((onnx_tokens == torch_tokens).all(1).sum())
            advance(1)
    return {"largest_difference": largest, "equal_sequences": same / len(chosen), "examples": len(chosen)}


def _generated(transformers_model: Any, exported: Seq2SeqOnnx, inputs: dict[str, Tensor]) -> Tensor:
    """What torch generates, in the same way."""
    device = next(transformers_model.parameters()).device
    with blame(StageError, "the torch model's generate"), hush(), torch.no_grad():
        arguments = {name: value.to(device) for name, value in exported.feed(inputs).items()}
        tokens: Tensor = transformers_model.generate(**arguments)[:, 1:].cpu()
    return tokens
