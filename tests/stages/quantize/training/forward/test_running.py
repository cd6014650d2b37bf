import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.model import call
from stages.quantize.training.forward.placement import plan_of
from stages.quantize.training.module import part_of, quantize
from tests.stages.quantize.training.aware_nets import images

INPUTS = {"input": images(8)}


class Block(nn.Module):
    """Sums, a ReLU and a SiLU that change their input where asked; the caller goes on with what was changed."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.first, self.second, self.third = (nn.Conv2d(1 if i == 0 else 4, 4, 3, padding=1) for i in range(3))
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        y = F.dropout(self.second(x), 0.2, self.training, self.in_place)
        if self.in_place:
            y.add_(x)
            F.relu_(y)
        else:
            y = F.relu(y + x)
        z = self.third(y)
        z += y
        return self.head(F.silu(z, self.in_place).mean((2, 3)))


def block(in_place: bool, training: bool) -> nn.Module:
    torch.manual_seed(0)
    module = Block(in_place).eval()
    plan = plan_of(module, INPUTS)
    quantize(module, plan.to_json(), dict.fromkeys(plan.axes, 4), "uint8")
    part = part_of(module)
    part.start({name: module.get_parameter(name) for name in plan.axes})
    for number in range(len(part.activations)):
        part.of_activation(number).start(-1.0, 1.5)
    return module.train(training)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_changed_in_place_is_quantized_and_trained_like_what_is_not(training: bool) -> None:
    outputs, gradients = [], []
    for in_place in (False, True):
        module = block(in_place, training)
        torch.manual_seed(1)
        outputs.append(call(module, INPUTS)["output"])
        outputs[-1].square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in module.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)
