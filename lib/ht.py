"""Types of values that came from outside: opcode parameters, node calls, LUXI and RAPI arguments.

A L{Type} is called with a value and answers whether the value fits; its text is what a person reads
("list of non-empty string"), L{Type.Problem} says in words what is wrong and where, and C{schema}
describes it in JSON Schema for generated documentation. Types are put together from smaller ones::

    TListOf(TNonEmptyString)(["a", "b"])   # True
    TListOf(TNonEmptyString).Problem(["a", 3])   # "item 1: 3 is no non-empty string"

Values are JSON: a list may also be a tuple (our own callers pass some), but a bool is never a
number and a number never a bool.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

#: Longest piece of a refused value that a text shows.
_SHOWN_CHARS: Final = 80
#: What is larger is no number of anything here, and the system and floating point can't have it.
_MAX_INT: Final = 2**63 - 1

Schema = dict[str, Any]


def Show(value: object) -> str:
    """A short text for a refused value."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


class Type:
    """A set of values with a name.

    @ivar name: what a message calls it, e.g. C{list of string}
    @ivar schema: the same in JSON Schema
    @ivar compound: does the name need parentheses inside of another one?
    """

    __slots__ = ("compound", "name", "schema")

    def __init__(self, name: str, schema: Schema, compound: bool = False) -> None:
        self.name = name
        self.schema = schema
        self.compound = compound

    def __call__(self, value: object) -> bool:
        """Does the value fit?"""
        return self.Problem(value) is None

    def Problem(self, value: object) -> str | None:
        """What is wrong with the value and where in it; None if it fits."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Type {self.name}>"

    def _Refuse(self, value: object) -> str:
        return f"{Show(value)} is no {self.name}"


def _Inner(inner: Type) -> str:
    """The name of a type as a part of another name."""
    return f"({inner.name})" if inner.compound else inner.name


class _Leaf(Type):
    """A type whose values have no parts."""

    __slots__ = ("_test",)

    def __init__(self, name: str, test: Callable[[Any], bool], schema: Schema) -> None:
        super().__init__(name, schema)
        self._test = test

    def Problem(self, value: object) -> str | None:
        return None if self._test(value) else self._Refuse(value)


def _IsInt(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MAX_INT <= value <= _MAX_INT


def _IsFloat(value: object) -> bool:
    # JSON has neither infinity nor NaN
    return isinstance(value, float) and math.isfinite(value)


def _IsNumber(value: object) -> bool:
    return _IsInt(value) or _IsFloat(value)


def _IsList(value: object) -> bool:
    return isinstance(value, (list, tuple))


TAny: Final[Type] = _Leaf("any value", lambda _: True, {})
TNone: Final[Type] = _Leaf("none", lambda value: value is None, {"type": "null"})
TBool: Final[Type] = _Leaf("boolean", lambda value: isinstance(value, bool), {"type": "boolean"})
#: Exactly true: a flag that can be set but not unset.
TTrue: Final[Type] = _Leaf("true", lambda value: value is True, {"const": True})
TString: Final[Type] = _Leaf("string", lambda value: isinstance(value, str), {"type": "string"})
TNonEmptyString: Final[Type] = _Leaf(
    "non-empty string",
    lambda value: isinstance(value, str) and value != "",
    {"type": "string", "minLength": 1},
)
TInt: Final[Type] = _Leaf("integer", _IsInt, {"type": "integer"})
#: Above zero.
TPositiveInt: Final[Type] = _Leaf(
    "positive integer", lambda value: _IsInt(value) and value > 0, {"type": "integer", "minimum": 1}
)
TNonNegativeInt: Final[Type] = _Leaf(
    "non-negative integer",
    lambda value: _IsInt(value) and value >= 0,
    {"type": "integer", "minimum": 0},
)
TFloat: Final[Type] = _Leaf("floating point number", _IsFloat, {"type": "number"})
#: Integer or floating point.
TNumber: Final[Type] = _Leaf("number", _IsNumber, {"type": "number"})
TNonNegativeNumber: Final[Type] = _Leaf(
    "non-negative number",
    lambda value: _IsNumber(value) and value >= 0,
    {"type": "number", "minimum": 0},
)
TList: Final[Type] = _Leaf("list", _IsList, {"type": "array"})
TNonEmptyList: Final[Type] = _Leaf(
    "non-empty list",
    lambda value: _IsList(value) and len(value) > 0,
    {"type": "array", "minItems": 1},
)
TDict: Final[Type] = _Leaf("dictionary", lambda value: isinstance(value, dict), {"type": "object"})


def TIntRange(low: int, high: int) -> Type:
    """An integer from C{low} to C{high}, both included."""
    return _Leaf(
        f"integer from {low} to {high}",
        lambda value: _IsInt(value) and low <= value <= high,
        {"type": "integer", "minimum": low, "maximum": high},
    )


def TRegex(pattern: str, name: str) -> Type:
    """A string that matches the pattern as a whole; C{name} is what a person calls it."""
    compiled = re.compile(pattern)
    return _Leaf(
        name,
        lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None,
        {"type": "string", "pattern": f"^(?:{pattern})$"},
    )


class _ElemOf(Type):
    __slots__ = ("_values",)

    def __init__(self, values: Collection[Any]) -> None:
        self._values = tuple(values)
        shown = self._values if isinstance(values, (list, tuple)) else sorted(values, key=repr)
        if not shown:
            raise ValueError("A choice needs at least one value")
        super().__init__("one of " + ", ".join(map(str, shown)), {"enum": list(shown)})
        self.compound = len(self._values) > 1

    def Problem(self, value: object) -> str | None:
        # The type counts: for Python True equals 1
        if any(type(value) is type(mine) and value == mine for mine in self._values):
            return None
        return f"{Show(value)} is not {self.name}"


def TElemOf(*values: Any) -> Type:
    """One of some values, given as arguments or as one collection."""
    if len(values) == 1 and isinstance(values[0], Collection) and not isinstance(values[0], str):
        return _ElemOf(values[0])
    return _ElemOf(values)


class _Or(Type):
    __slots__ = ("_choices",)

    def __init__(self, name: str, choices: tuple[Type, ...]) -> None:
        super().__init__(name, {"anyOf": [choice.schema for choice in choices]}, compound=True)
        self._choices = choices

    def Problem(self, value: object) -> str | None:
        problems = [choice.Problem(value) for choice in self._choices]
        if None in problems:
            return None
        if len(problems) == 2 and self._choices[0] is TNone:
            return problems[1]
        return self._Refuse(value)


def TOr(*choices: Type) -> Type:
    """A value of any of the types."""
    return _Or(" or ".join(map(_Inner, choices)), choices)


def TMaybe(inner: Type) -> Type:
    """None or a value of the type."""
    return _Or(f"none or {_Inner(inner)}", (TNone, inner))


class _And(Type):
    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[Type, ...]) -> None:
        super().__init__(
            " and ".join(map(_Inner, parts)),
            {"allOf": [part.schema for part in parts]},
            compound=True,
        )
        self._parts = parts

    def Problem(self, value: object) -> str | None:
        for part in self._parts:
            problem = part.Problem(value)
            if problem is not None:
                return problem
        return None


def TAnd(*parts: Type) -> Type:
    """A value of all of the types."""
    return _And(parts)


class _ListOf(Type):
    __slots__ = ("_inner", "_least")

    def __init__(self, inner: Type, least: int) -> None:
        schema: Schema = {"type": "array", "items": inner.schema}
        if least:
            schema["minItems"] = least
        super().__init__(f"{'non-empty ' if least else ''}list of {_Inner(inner)}", schema)
        self._inner = inner
        self._least = least

    def Problem(self, value: object) -> str | None:
        if not (isinstance(value, (list, tuple)) and len(value) >= self._least):
            return self._Refuse(value)
        for index, item in enumerate(value):
            problem = self._inner.Problem(item)
            if problem is not None:
                return f"item {index}: {problem}"
        return None


def TListOf(inner: Type) -> Type:
    """A list, maybe empty, of values of one type."""
    return _ListOf(inner, 0)


def TNonEmptyListOf(inner: Type) -> Type:
    """A list of at least one value of one type."""
    return _ListOf(inner, 1)


class _Tuple(Type):
    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[Type, ...]) -> None:
        super().__init__(
            f"list of {len(parts)} items ({', '.join(part.name for part in parts)})",
            {
                "type": "array",
                "prefixItems": [part.schema for part in parts],
                "minItems": len(parts),
                "maxItems": len(parts),
            },
        )
        self._parts = parts

    def Problem(self, value: object) -> str | None:
        if not (isinstance(value, (list, tuple)) and len(value) == len(self._parts)):
            return self._Refuse(value)
        for index, (part, item) in enumerate(zip(self._parts, value, strict=True)):
            problem = part.Problem(item)
            if problem is not None:
                return f"item {index}: {problem}"
        return None


def TTuple(*parts: Type) -> Type:
    """A list or tuple of exactly these types, in this order."""
    return _Tuple(parts)


def TItems(parts: Collection[Type]) -> Type:
    """The same as L{TTuple} with the types in one collection."""
    return _Tuple(tuple(parts))


class _DictOf(Type):
    __slots__ = ("_key", "_value")

    def __init__(self, key: Type, value: Type) -> None:
        super().__init__(
            f"dictionary of {_Inner(key)} to {_Inner(value)}",
            {"type": "object", "additionalProperties": value.schema},
        )
        self._key = key
        self._value = value

    def Problem(self, value: object) -> str | None:
        if not isinstance(value, dict):
            return self._Refuse(value)
        for key, item in value.items():
            problem = self._key.Problem(key)
            if problem is not None:
                return f"key {problem}"
            problem = self._value.Problem(item)
            if problem is not None:
                return f"entry {Show(key)}: {problem}"
        return None


def TDictOf(key: Type, value: Type) -> Type:
    """A dictionary whose keys and values have one type each."""
    return _DictOf(key, value)


class _Object(Type):
    __slots__ = ("_others", "_optional", "_required")

    def __init__(
        self, required: Mapping[str, Type], optional: Mapping[str, Type], others: bool
    ) -> None:
        self._required = dict(required)
        self._optional = dict(optional)
        self._others = others
        known = self._required | self._optional
        names = [*self._required, *(f"{name} (optional)" for name in self._optional)]
        super().__init__(
            f"dictionary with {', '.join(names) or 'nothing'}",
            {
                "type": "object",
                "properties": {name: inner.schema for name, inner in known.items()},
                "required": list(self._required),
                "additionalProperties": others,
            },
        )

    def Problem(self, value: object) -> str | None:
        if not isinstance(value, dict):
            return self._Refuse(value)
        for name in self._required:
            if name not in value:
                return f"entry '{name}' is missing"
        for name, item in value.items():
            inner = self._required.get(name) or self._optional.get(name)
            if inner is None:
                if not self._others:
                    return f"entry {Show(name)} is unknown"
                continue
            problem = inner.Problem(item)
            if problem is not None:
                return f"entry '{name}': {problem}"
        return None


def TObject(
    required: Mapping[str, Type],
    optional: Mapping[str, Type] | None = None,
    others: bool = False,
) -> Type:
    """A dictionary with named entries, each with its type.

    @param others: are further entries allowed?
    """
    return _Object(required, optional or {}, others)


#: A job id: decimal text up to release 2.6, an integer later. Not of any length: Python takes only
#: so many digits for a number.
TJobId: Final[Type] = _Leaf(
    "job id",
    lambda value: (
        TNonNegativeInt(value)
        or (isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) is not None)
    ),
    {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,18}$"}]},
)

# Names that become parts of paths and command lines. None begins with a dot (a directory, a hidden
# file) or a dash (an option), and none holds a slash, a blank or anything unprintable. Whether
# there is something of the name is for who uses it; old names must stay usable, so these are wider
# than what new ones may be.

#: Also of exports, which are named like their instances.
TInstanceName: Final[Type] = TRegex("[a-zA-Z0-9_][a-zA-Z0-9._+-]{0,254}", "instance name")
#: Of a node, a cluster or any other host.
THostName: Final[Type] = TRegex("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,254}", "host name")
#: Of an operating system, maybe with its variant.
TOsName: Final[Type] = TRegex("[a-zA-Z0-9_][a-zA-Z0-9._+-]{0,254}", "OS name")
#: Of a script: see C{constants.EXT_PLUGIN_MASK}.
TPluginName: Final[Type] = TRegex("[a-zA-Z0-9_][a-zA-Z0-9_-]{0,254}", "name of a script")
TVolumeGroupName: Final[Type] = TRegex("[a-zA-Z0-9_+][a-zA-Z0-9._+-]{0,126}", "volume group name")
#: IPv4, IPv6 (maybe with its interface), or the name of a host.
TAddress: Final[Type] = TRegex("[a-zA-Z0-9_:][a-zA-Z0-9._:%-]{0,254}", "network address")
#: Of a network device of a node.
TDeviceName: Final[Type] = TRegex(r"[^\s/.\0-][^\s/\0]{0,254}", "network device name")
