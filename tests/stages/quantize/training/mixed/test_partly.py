"""Layers that compute in integers alone among layers in floats."""

import torch
import torch.nn.functional as F

from stages.quantize.training.mixed.partly import answers, owners
from stages.quantize.training.module import part_of
from tests.stages.quantize.training.aware_nets import images, model_of, quantized

ALL = ("conv1", "conv2", "conv3", "hidden", "head")


def test_no_layer_gives_the_answers_in_floats_and_all_those_of_the_network() -> None:
    model, inputs = quantized("Residual", images()), {"input": images(32, seed=1)}
    folded, whole = model_of("Residual").predict(inputs)["output"], model.predict(inputs)["output"]
    (none,), (every,) = (answers(model, layers, [inputs], None) for layers in ((), ALL))
    torch.testing.assert_close(torch.from_numpy(none), folded, atol=1e-5, rtol=0)
    assert torch.equal(torch.from_numpy(every), whole)
    assert torch.equal(model.predict(inputs)["output"], whole)


def test_a_layer_alone_rounds_its_weight_its_bias_and_what_it_reads_first() -> None:
    model, x = quantized("Residual", images(), scheme=3), images(32, seed=1)
    part, net = part_of(model.module), model.module
    assert owners(part.plan) == {0: "conv1", 1: "conv2", 2: "conv3", 3: "conv3", 4: "conv3", 5: "hidden", 6: "head"}
    (ours,) = answers(model, ("conv2",), [{"input": x}], None)
    with torch.no_grad():
        read = part.of_activation(1)(F.max_pool2d(F.relu6(net.conv1(x)), 2))
        integers = part.of_weight("conv2.weight").integers(net.conv2.weight)
        step = integers.step * part.of_activation(1).step
        bias = (net.conv2.bias / step).round() * step
        y = torch.relu(F.conv2d(read, integers.codes * integers.step[:, None, None, None], bias, padding=1))
        y = torch.relu(net.conv3(y) + read)  # the sum reads the same value
        theirs = net.head(torch.relu(net.hidden(F.adaptive_avg_pool2d(y, 1).flatten(1))))
    torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-5, rtol=0)
