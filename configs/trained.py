"""A network that comes trained."""

from pydantic import Field

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.forms.weights import load_weights
from pipeline.model import TorchModel
from pipeline.stage import Stage


class TrainedNetwork(Stage):
    """A network with weights of before, in the place of the model that comes in: a student is not trained anew.

    Stages behind it learn from the model that came in with `teacher: baseline`.
    """

    network: Reference = Field(description="its builder")
    weights: str = Field(description="a state dict in safetensors, or by torch.save, beside the pipeline file")

    def builds_on_incoming(self) -> bool:
        """No: all that it takes of it is the form of its inputs."""
        return False

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The network. Raises ConfigError where the weights are not its own."""
        made = TorchModel.build(self.network, model.example, model.axes)
        load_weights(made.module, self.network.folder / self.weights)
        return made
