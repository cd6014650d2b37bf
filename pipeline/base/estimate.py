"""A figure with its interval."""

from pydantic import BaseModel, ConfigDict


class Estimate(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    value: float
    low: float
    high: float
