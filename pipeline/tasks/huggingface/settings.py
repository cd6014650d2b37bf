"""What all kinds of tasks on a dataset are told: where it is, which columns and parts of it, and how much."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.base.data.strict import Strict

Kind = Literal[
    "image_classification",
    "text_classification",
    "audio_classification",
    "text_regression",
    "similarity",
    "translation",
]

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Role = Literal["train", "validation", "test"]

FOUND_BY_TYPE = "found by its type where there is one choice"


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Settings(Strict):
    """The keys of every kind."""

    data: str = Field(min_length=1, description="a name on the Hugging Face hub, or a folder")
    config: str | None = Field(None, description="of the dataset, such as sst2 of nyu-mll/glue")
    revision: str | None = Field(None, description="of the dataset on the hub: a commit, a tag")
    kind: Kind | None = Field(None, description="what to learn; guessed from the columns where they are plain")
    inputs: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        (), max_length=2, description=f"columns; {FOUND_BY_TYPE}. Two texts are a pair"
    )
    target: str | None = Field(None, description=f"column; {FOUND_BY_TYPE}")
    train: str = Field("train", description="the part of the dataset that is trained on")
    validation: str | Share | None = Field(
        None, description="a part, or the share of train to take; where there is no part of that name, 0.1"
    )
    test: str | Share | None = Field(None, description="likewise")
    seed: int = Field(0, ge=0, description="of the shares and of what `limit` leaves")
    limit: Count | dict[Role, Count] | None = Field(
        None, description="examples of each part at most: a random choice, the first ones when streaming"
    )
    overlap: Literal["error", "drop"] = Field(
        "error", description="what becomes of examples of train and validation that are in test too"
    )
    streaming: bool = Field(
        False, description="read up to `limit` rows one after the other instead of the whole dataset first"
    )

    @model_validator(mode="after")
    def _some_train_is_left(self) -> Self:
        shares = [share for share in (self.validation, self.test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError("shares of validation and test below 1 together")
        return self

    def most(self, role: Role) -> int | None:
        """How many examples of a part are read at most."""
        return self.limit.get(role) if isinstance(self.limit, Mapping) else self.limit
