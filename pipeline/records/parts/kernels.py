"""What ONNX Runtime makes of the file that a stage gave, on the machine of the run."""

from pydantic import BaseModel

from pipeline.base.estimate import Estimate


class OperatorUse(BaseModel):
    """The nodes of one operator in the graph as it is run; `integer` where they sum products of integers.

    `macs` is null where they are not known, `time_share` of all time where none was taken. Convolutions on channels in
    blocks count the channels that these are filled up with.
    """

    operator: str
    count: int
    integer: bool
    macs: int | None
    time_share: float | None


class Fallback(BaseModel):
    """Products that are computed in floats though the file is quantized, and why."""

    nodes: list[str]
    operator: str
    why: str


class KernelAlarm(BaseModel):
    """Nodes of which a pattern is known that makes them slow, and what to do."""

    pattern: str
    nodes: list[str]
    why: str
    remedy: str


class Kernels(BaseModel):
    """How the file of a stage runs: operators, the share of MACs in integer kernels, the time over that of the input.

    `ratio` is of latencies, the stage's file over the one that came in: one thread, one example, in turns, on the
    machine of the run. It is null, with the reason, where one inference takes too long for it. `slower` says that its
    whole interval is above 1.05. `integer_macs` is null where an operator is not known.
    """

    operators: list[OperatorUse]
    integer_macs: float | None
    ratio: Estimate | None
    ratio_reason: str | None = None
    slower: bool = False
    alarms: list[KernelAlarm] = []
    floats: list[Fallback] = []
