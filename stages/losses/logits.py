"""Distillation of logits (Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network, 2015, 1503.02531)."""

from torch import Tensor
from torch.nn import functional as F


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, mean over all else.

    The factor T^2 keeps the gradient's size the same at every temperature (section 2 of the paper), so that
    `hard_weight` means the same at T = 1 and at T = 10.

    Args:
        student, teacher: logits (..., classes).
        temperature: T, above 0; 1 leaves the teacher's distribution as it is, higher shows more of its small values.
    """
    classes = student.shape[-1]
    log_student = F.log_softmax(student.reshape(-1, classes) / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.reshape(-1, classes) / temperature, dim=-1)
    # "mean" would divide by batch times classes; the definition divides by the batch alone.
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def distillation_loss(
    student: Tensor, teacher: Tensor, hard_loss: Tensor, *, temperature: float, hard_weight: float
) -> Tensor:
    """hard_weight * hard_loss + (1 - hard_weight) * soft_loss: lambda of the paper is the weight of the labels.

    Args:
        student, teacher: logits (..., classes).
        hard_loss: scalar loss of the student against the labels.
        temperature: see `soft_loss`.
        hard_weight: 0 learns from the teacher alone, 1 from the labels alone.
    """
    return hard_weight * hard_loss + (1 - hard_weight) * soft_loss(student, teacher, temperature)
