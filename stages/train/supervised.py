"""Supervised training."""

from typing import ClassVar

from pipeline.context import Context
from pipeline.model import TorchModel
from pipeline.stage import Stage
from stages.trainer.loop import train
from stages.trainer.objective import Supervised
from stages.trainer.settings import TrainingSettings


class SupervisedTraining(TrainingSettings, Stage):
    """A model trained against the labels with the task's loss.

    Choose it in `baseline:` to make the teacher, or in `stages:` as the control that tells what distillation brought.

    Example:
        - {use: train.supervised, epochs: 30, learning_rate: 0.002}

    Reference:
        Loshchilov and Hutter: Decoupled Weight Decay Regularization, 2019, 1711.05101 (the default optimizer), and
        SGDR, 2017, 1608.03983, equation 5 (the cosine schedule).
    """

    keeps_structure: ClassVar[bool] = True

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The trained model."""
        return train(model, Supervised(ctx), self, ctx)
