"""The graphs of an encoder-decoder, as they answer elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.measure.isa.emulate import emulate
from pipeline.measure.isa.errors import NoIntegersError
from stages.export.seq2seq import Seq2SeqExport
from stages.quantize.optimum import OptimumQuantization
from tests import translators
from tests.translators import copies, inputs, made

pytestmark = pytest.mark.optimum


def test_all_graphs_are_rewritten_and_generate(context: Any, tmp_path: Path) -> None:
    task = translators.task()
    ctx = context(validation=task.validation, decode=task.decode, directory=tmp_path / "work")
    fp32 = Seq2SeqExport().run(made("marian"), ctx)
    signed = OptimumQuantization(target="avx512_vnni").run(fp32, context(directory=tmp_path / "signed"))
    given = inputs(copies(24, seed=4))
    there, layers = emulate(signed, "avx2", tmp_path / "there")
    assert layers
    assert (there.logits(given) - signed.logits(given)).abs().max() > 0  # type: ignore[union-attr]
    assert there.predict(given)["sequences"].shape[0] == 24
    spared = emulate(signed, "avx2", tmp_path / "spared", exact=[layer.node for layer in layers]).model
    assert (spared.logits(given) == emulate(signed, "vnni", tmp_path / "v").model.logits(given)).all()  # type: ignore[union-attr]
    unsigned = OptimumQuantization(target="avx2").run(fp32, context(directory=tmp_path / "unsigned"))
    assert not emulate(unsigned, "avx2", tmp_path / "none").layers
    with pytest.raises(NoIntegersError, match=r"encoder_model.onnx has no integers"):
        emulate(fp32, "avx2", tmp_path / "fp32")
