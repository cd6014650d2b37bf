"""Which weights are not as the configuration says."""

from transformers import BertConfig, BertForSequenceClassification

from stages.export.hugging_face import misfits

SIZES = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}


def test_weights_of_other_shapes_are_named() -> None:
    model = BertForSequenceClassification(BertConfig(**SIZES))
    assert misfits(model) == []
    model.config.intermediate_size = 24
    dense = "bert.encoder.layer.0.intermediate.dense"
    assert misfits(model) == [f"{dense}.weight", f"{dense}.bias", "bert.encoder.layer.0.output.dense.weight"]
    model.config.num_attention_heads = 3  # by which the library does not divide 32
    assert misfits(model) == [*model.state_dict()]
