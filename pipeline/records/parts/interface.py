"""What goes into the deployed model and comes out of it."""

from pydantic import BaseModel


class Port(BaseModel):
    """An input or output of the deployed model: its shape without the batch, and what was seen on training data."""

    name: str
    shape: list[int]
    dtype: str
    low: float | None = None
    high: float | None = None
    mean: float | None = None


class Interface(BaseModel):
    """What someone who deploys the model has to know; `labels` are the names of the classes, in order.

    `scored` is the output that the task scores, where it says which.
    """

    inputs: list[Port]
    outputs: list[Port]
    labels: list[str] = []
    preprocessing: str = ""
    scored: str | None = None
