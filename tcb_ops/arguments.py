"""The arguments of the public functions, checked by their annotations: a wrong one is an ArgumentError that names it."""

from __future__ import annotations

import builtins
import errno
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from enum import EnumType
from functools import cache, wraps
from inspect import Parameter, Signature, signature, unwrap
from pathlib import Path
from typing import Any, Literal, ParamSpec, SupportsIndex, TypeVar, Union, get_args, get_origin

from tcb_ops.errors import ArgumentError
from tcb_ops.i18n import Joined, Text, _, verbatim
from tcb_ops.model import Outcome

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LARGEST = 10**18
"""Every database can hold and compare what is smaller."""


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the function with checked arguments. An unknown or missing one is still Python's TypeError.

    Keywords that the function takes as `**options: Unpack[…]` of a TypedDict are its parameters, in its signature, too.
    Text must be writable as UTF-8 and without NUL, a whole number must fit a database, a path must be one that this system can
    have. What an annotation does not say, such as the least value, the function checks itself.
    """

    @cache
    def kinds() -> dict[str, Any]:
        return _kinds(takes, {**_options_module(function), **unwrap(function).__globals__})

    @wraps(function)
    def call(*args: _P.args, **options: _P.kwargs) -> _R:
        for name in options.keys() - takes.parameters.keys():
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
        try:
            arguments = takes.bind(*args, **options).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        for name, value in arguments.items():
            kind = kinds()[name]
            if not _fits(value, kind):
                raise ArgumentError(
                    name, value, _description(str(takes.parameters[name].annotation), kind, value)
                )
        return function(*args, **options)

    takes = _signature(function)
    call.__dict__["__signature__"] = takes
    return call


def _signature(function: Callable[..., Any]) -> Signature:
    """Return a function's signature, with the keywords of `**options: Unpack[…]` one by one."""
    takes = signature(function).replace(return_annotation=function.__annotations__["return"])
    if (shared := _shared_options(function)) is None:
        return takes
    *parameters, _options = takes.parameters.values()
    for name, annotation in shared.__annotations__.items():
        text = annotation.__forward_arg__
        default = {"str": "", "str | Sequence[str]": "", "bool": False}.get(text)
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=text))
    return takes.replace(parameters=parameters)


def _shared_options(function: Callable[..., Any]) -> Any:
    """Return the TypedDict of a function's `**options: Unpack[…]`; None without them."""
    parameters = [*signature(function).parameters.values()]
    if not parameters or parameters[-1].kind is not Parameter.VAR_KEYWORD:
        return None
    return unwrap(function).__globals__[parameters[-1].annotation.removeprefix("Unpack[").removesuffix("]")]


def _options_module(function: Callable[..., Any]) -> Mapping[str, Any]:
    shared = _shared_options(function)
    return {} if shared is None else vars(sys.modules[shared.__module__])


def _kinds(takes: Signature, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of the parameters. A class that is imported for type checkers only is known by its name."""
    names: dict[str, Any] = {"pd": types.SimpleNamespace(DataFrame=_ByName("DataFrame", (), {}))}
    annotations = {name: parameter.annotation for name, parameter in takes.parameters.items()}
    annotations = {name: text if isinstance(text, str) else "object" for name, text in annotations.items()}
    for name in {word for text in annotations.values() for word in re.findall(r"\w+", text)}:
        if name not in names and name not in hints and not hasattr(builtins, name):
            names[name] = _ByName(name, (), {})
    # Annotations of this package, written out as text by `from __future__ import annotations`.
    return {name: eval(text, {**hints, **names}) for name, text in annotations.items()}  # noqa: S307


class _ByName(type):
    """Stands for a class that is not imported here: the instances of a class of its name are its own."""

    def __instancecheck__(cls, value: object) -> bool:
        return any(each.__name__ == cls.__name__ for each in type(value).__mro__)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type.

    ======================  ==============================================================
    type                    values
    ======================  ==============================================================
    bool, Literal, an enum  their own
    Outcome                 those of the core and the features
    int, float              numbers of at most 18 digits; no bool, no infinity
    SupportsIndex           whole numbers, those of numpy too
    str                     text that can be written as UTF-8, without NUL
    Path, with or           a path, as str or PathLike, that this system can have
    without str
    Mapping, collections    those whose items fit; an iterator's are not looked at
    a union                 what fits one of its types
    Callable                functions
    a protocol              what has its methods
    another class           its instances
    ======================  ==============================================================
    """
    origin = get_origin(kind)
    if kind in _RULES:
        return _RULES[kind](value)
    if origin in {Union, types.UnionType}:
        args = get_args(kind)
        return any(_fits(value, each) for each in args if not (each is str and Path in args))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is Callable:
        return callable(value)
    if origin is not None:
        return _items_fit(value, origin, get_args(kind))
    if kind is Outcome or isinstance(kind, EnumType):
        return isinstance(value, str) and value in _words(kind)
    return isinstance(value, kind)


def _items_fit(value: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, args[0]) and _fits(item, args[1]) for key, item in value.items()
        )
    if isinstance(value, list | tuple | set | frozenset):
        return all(_fits(item, args[0]) for item in value)
    return origin is Iterable and isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _words(kind: Any) -> tuple[str, ...]:
    """Return the words of a Literal, an enum, or a set of outcomes, which features add to; none for other types."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if any(each is Outcome for each in (kind, *get_args(kind))):
        return tuple(map(str, Outcome.all()))
    return tuple(map(str, kind)) if isinstance(kind, EnumType) else ()


def is_number(value: Any) -> bool:
    """Return whether a value is a number of at most 18 digits; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_path(value: Any) -> bool:
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not str(value):
        return False
    try:
        os.lstat(value)
    except ValueError:  # NUL, or characters that no path of this system has
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


_RULES: dict[Any, Callable[[Any], bool]] = {
    Any: lambda _value: True,
    int: lambda value: isinstance(value, int) and is_number(value),
    float: is_number,
    str: lambda value: isinstance(value, str) and re.search("[\0\ud800-\udfff]", value) is None,
    Path: _is_path,
    SupportsIndex: lambda value: isinstance(value, SupportsIndex) and not isinstance(value, bool),
}


def _description(text: str, kind: Any, value: object) -> Text:
    """Return what a type accepts: the words of a vocabulary, else as it is annotated; of that type, what is wrong."""
    kinds = get_args(kind) if get_origin(kind) in {Union, types.UnionType} else (kind,)
    if words := [word for each in kinds for word in _words(each)]:
        return Joined(tuple(words), _("{one} or {next}", one="", next=""))
    if Path in kinds and isinstance(value, str | os.PathLike):
        return _("a path that this system can have")
    if str in kinds and isinstance(value, str):
        return _("text in UTF-8 without NUL")
    if isinstance(value, int) and {int, float} & set(kinds):
        return _("a number of at most 18 digits")
    return verbatim(text)
