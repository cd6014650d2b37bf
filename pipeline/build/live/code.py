"""What there is to say of code that no file of a config names: of functions, methods and classes.

Of a library's code nothing, for its name counts; of users' code what it compiles to and what it reaches by name.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from pipeline.base.code.places import is_users

NOT_OF_CODE = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__")
OF_PYDANTIC = ("core_schema", "validator", "serializer", "parent_namespace")  # made of the fields and the methods


def is_users_own(named: Any) -> bool:
    """Whether a class or function is of users' code, also of what was typed in and lies in no file."""
    if isinstance(named, FunctionType):
        file = named.__code__.co_filename
        return is_users(file) or (file.startswith("<") and is_users_module(named.__module__))
    return is_users_module(getattr(named, "__module__", None))


def is_users_module(name: str | None) -> bool:
    """Whether a module that was imported is of users' code, or what was typed in."""
    top = str(name).partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return False
    module = sys.modules.get(str(name))
    file = getattr(module, "__file__", None)
    return is_users(str(Path(file).absolute())) if file else top == "__main__"


def of_function(function: FunctionType) -> Iterator[Any]:
    """Its code where that is a user's, and what it holds: a library's may be around a user's."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            yield "empty"
    if not is_users_own(function):
        return
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    names = _names(function.__code__)
    for name in names:
        if name in function.__globals__:
            yield from _reached(name, function.__globals__[name], names)
        elif is_users_module(name):  # imported inside the function
            yield from _reached(name, sys.modules.get(name), names)


def of_method(method: Any) -> Iterator[Any]:
    """Its object and its function; of one that a library offers by its bare name, as `random.random`, that name."""
    owner, name = method.__self__, getattr(method, "__name__", "")
    home = owner if isinstance(owner, ModuleType) else sys.modules.get(type(owner).__module__)
    yield name
    if getattr(home, name, None) != method or is_users_module(getattr(home, "__name__", None)):
        yield from (owner, getattr(method, "__func__", None))


def _reached(name: str, value: Any, names: Sequence[str]) -> Iterator[Any]:
    """What code reaches by a name: of a user's module what it asks it for, as it is in memory and not on disk."""
    yield name
    if isinstance(value, ModuleType) and is_users_module(value.__name__):
        for inner in names:
            if inner in vars(value) and vars(value)[inner] is not value:
                yield from _reached(inner, vars(value)[inner], [n for n in names if n != inner])
    else:
        yield value


def of_class(kind: type) -> Iterator[Any]:
    """Its bases and all that its body defines, where it is a user's."""
    if is_users_own(kind):
        yield kind.__bases__
        left_out = {*NOT_OF_CODE, *(f"__pydantic_{name}__" for name in OF_PYDANTIC)}
        yield {name: value for name, value in vars(kind).items() if name not in left_out and not _is_slot(value)}


def _names(code: CodeType) -> list[str]:
    """The names that code reads, and that the code inside it does."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*dict.fromkeys([*code.co_names, *inner])]


def of_code(code: CodeType) -> Iterator[Any]:
    """All that is run, and none of where it is written."""
    yield from (code.co_code, code.co_consts, code.co_exceptiontable, code.co_flags)
    yield from (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)


def _is_slot(value: Any) -> bool:
    return type(value).__name__ in ("member_descriptor", "getset_descriptor", "_abc_data")
