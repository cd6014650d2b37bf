"""Users' modules are compiled from the source that is there, and never from compiled files.

Python tells compiled files by second and size, so that an edit within a second would run in its old form.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from pipeline.base.code.places import is_users

Told = Callable[[str, Path, str], None]


class FreshFinder:
    """Finds users' modules for `sys.meta_path`, and leaves all others to those that come after it.

    Args:
        told: is given the name, the file and the SHA-256 of the source of each module that is compiled.
    """

    def __init__(self, told: Told) -> None:
        self.told = told

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a user's module is; None for one that is not a user's."""
        if name.partition(".")[0] in sys.stdlib_module_names or any("site-packages" in place for place in path or ()):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if (
            spec is None
            or spec.origin is None
            or type(spec.loader) is not SourceFileLoader
            or not is_users(spec.origin)
        ):
            return None
        spec.loader = _FreshLoader(name, spec.origin, self.told)
        return spec


class _FreshLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, told: Told) -> None:
        super().__init__(name, path)
        self.told = told

    def get_code(self, fullname: str) -> CodeType:
        """The compiled source, with the digest of exactly these bytes told."""
        content = self.get_data(self.path)
        self.told(fullname, Path(self.path).resolve(), hashlib.sha256(content).hexdigest())
        code: CodeType = self.source_to_code(content, self.path)
        return code
