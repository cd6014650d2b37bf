"""A figure with its interval."""

from pydantic import BaseModel, ConfigDict


class Estimate(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    value: float
    low: float
    high: float

    def __neg__(self) -> "Estimate":
        """A difference seen from the other side."""
        return Estimate(value=-self.value, low=-self.high, high=-self.low)
