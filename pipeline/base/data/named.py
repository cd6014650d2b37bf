"""Lists of settings that name their class: each entry `{use: NAME, ...}`, or a NAME alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, ValidationInfo

from pipeline.base.data.keys import keys_in
from pipeline.base.use import classes_in, find
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Named:
    """What the entries of a list name.

    Args:
        base: of the classes; a module that is named defines one subclass, whose fields are the entry's keys.
        package: of the built-in ones.
        noun: in messages, such as "runtime".
        example: of an entry.
    """

    base: type[BaseModel]
    package: str
    noun: str
    example: str

    def parse(self, value: Any, info: ValidationInfo) -> Any:
        """A list of names or {use: NAME, ...} as objects; anything else is left for pydantic to refuse.

        Args:
            value: what stands in the config, or objects.
            info: of the validation; `folder` in its context is where a user's files are.

        Raises:
            ValueError: there is nothing of that name, or its settings do not fit.
        """
        folder = info.context["folder"] if info.context else Path()
        return tuple(self._parsed(entry, folder) for entry in value) if isinstance(value, list | tuple) else value

    def class_of(self, use: str, folder: Path) -> type[Any]:
        """The one subclass in a file. Raises ConfigError where there is no such file, or it defines none or several."""
        classes: list[type[Any]] = classes_in(find(use, folder, package=self.package), self.base)
        if len(classes) != 1:
            expected = f"exactly one subclass of {self.base.__name__}"
            raise ConfigError(f"it defines {len(classes)} {self.noun}s", expected=expected)
        return classes[0]

    def _parsed(self, entry: Any, folder: Path) -> Any:
        entry = {"use": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict):
            return entry
        use = entry.get("use")
        if not isinstance(use, str):
            raise ValueError(f"each {self.noun} is a name, or a mapping with `use`, such as {self.example}")
        try:
            return self.class_of(use, folder).model_validate(entry, context={"folder": folder})
        except ConfigError as error:
            raise ValueError(f"a {self.noun} in place of `{use}`: {error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, keys_in(problem["loc"], entry)))
            message = problem["msg"].removeprefix("Value error, ")
            raise ValueError(f"{self.noun} {use}: {f'`{where}`: ' if where else ''}{message}") from error
