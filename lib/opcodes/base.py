"""What an opcode is: a record of declared parameters that can be checked, stored and loaded.

An opcode is the unit of work inside a job. A class declares its parameters as rows (L{Param}) and
nothing else; checking, serialisation, default values, RAPI bodies and reference pages follow from
the rows.

Absent and set are two states: a parameter that was not given is not in the record and not in its
serialised form, and reading it answers the declared default. So a job file shows what the client
asked for and what the logical unit settled, not what this version happens to have as defaults.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from .. import constants, errors, ht
from . import later

#: Key of the serialised form that names the class.
_ID_KEY: Final = "OP_ID"

#: Default of a parameter that has to be given; never a value of an opcode.
REQUIRED: Final[Any] = object()

#: Terse prefixes of summaries, for displays that have little room.
_TINY_PREFIXES: Final = {"CLUSTER_": "C_", "GROUP_": "G_", "NODE_": "N_", "INSTANCE_": "I_"}


class Param:
    """One parameter of an opcode.

    @ivar name: key in the serialised form and attribute of the opcode
    @ivar type: predicate from L{ht}
    @ivar default: what reading the parameter answers while it is absent; None if it is required
    @ivar required: must be given, and not as None
    @ivar doc: one sentence for people
    """

    __slots__ = ("default", "doc", "name", "required", "type")

    def __init__(self, name: str, type_: ht.Type, default: Any, doc: str) -> None:
        self.name = name
        self.type = type_
        self.required = default is REQUIRED
        self.default = None if self.required else default
        self.doc = doc

    def GetDefault(self) -> Any:
        """The default, as an object of the caller's own."""
        default = self.default
        return default.copy() if isinstance(default, (dict, list)) else default

    def __repr__(self) -> str:
        return f"<Param {self.name}: {self.type}>"


#: What every opcode takes.
COMMON_PARAMS: Final = (
    Param("dry_run", ht.TBool, False, "Only check and run the pre hooks, change nothing"),
    Param("debug_level", ht.TInt, 0, "Debug level handed to OS scripts"),
    Param(
        "priority",
        ht.TIntRange(constants.OP_PRIO_HIGHEST, constants.OP_PRIO_LOWEST),
        constants.OP_PRIO_DEFAULT,
        "Place in the queue: the lower number first; +10 low, 0 normal, -10 high",
    ),
    Param(
        "depends",
        ht.TMaybe(
            ht.TListOf(ht.TTuple(ht.TJobId, ht.TListOf(ht.TElemOf(constants.JOBS_FINALIZED))))
        ),
        None,
        "Jobs to wait for: list of [job id, final states that will do (none = all)]",
    ),
    Param("comment", ht.TMaybe(ht.TString), None, "Free text, shown with the job"),
    Param(
        "reason",
        ht.TMaybe(ht.TListOf(ht.TTuple(ht.TString, ht.TString, ht.TInt))),
        None,
        "Who asked for this and why: list of [source, text, nanoseconds since the epoch]",
    ),
)


def _IdFromClassName(name: str) -> str:
    """C{OpNodeAdd} -> C{OP_NODE_ADD}: split at each step from lower to upper case."""
    words = name[0]
    for before, char in zip(name, name[1:], strict=False):
        if char.isupper() and not before.isupper():
            words += "_"
        words += char
    return words.upper()


def _Refuse(text: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(text, errors.ECODE_INVAL)


#: All opcodes by OP_ID; a class enters when it is defined.
OP_MAPPING: Final[dict[str, type[OpCode]]] = {}


class OpCode:
    """Base of all opcodes.

    Attributes are the declared parameters and no others: reading an absent one answers its default
    (a fresh object each time; assign it to keep a change), reading an absent required one or
    setting an undeclared one is an AttributeError.

    @cvar OP_ID: the name on the wire and in job files
    @cvar OP_DSC_FIELD: the parameter that the summary shows in parentheses
    @cvar OP_PARAMS: the parameters of this class, beside the common ones
    @cvar OP_RESULT: predicate of the result of a successful run (not of a dry run)
    """

    OP_ID: ClassVar[str] = "OP_ABSTRACT"
    OP_DSC_FIELD: ClassVar[str | None] = None
    OP_PARAMS: ClassVar[tuple[Param, ...]] = ()
    OP_RESULT: ClassVar[ht.Type] = ht.TAny
    _PARAMS: ClassVar[dict[str, Param]] = {param.name: param for param in COMMON_PARAMS}

    def __init_subclass__(cls) -> None:
        cls.OP_ID = _IdFromClassName(cls.__name__)
        params = {param.name: param for param in cls.OP_PARAMS}
        params.update(OpCode._PARAMS)
        cls._PARAMS = params
        OP_MAPPING[cls.OP_ID] = cls

    def __init__(self, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in self._PARAMS:
                raise TypeError(f"{self.__class__.__name__} has no parameter '{name}'")
        self.__dict__.update(kwargs)

    def __getattr__(self, name: str) -> Any:
        # Called for what is not in the record only.
        param = self._PARAMS.get(name)
        if param is None:
            raise AttributeError(f"{self.__class__.__name__} has no parameter '{name}'")
        if param.required:
            raise AttributeError(f"Parameter '{name}' of {self.OP_ID} is not set")
        return param.GetDefault()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._PARAMS:
            raise AttributeError(f"{self.__class__.__name__} has no parameter '{name}'")
        self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"<{self.Summary()}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpCode):
            return NotImplemented
        return self.__class__ is other.__class__ and self.__dict__ == other.__dict__

    # A mutable record, so no key of a dictionary.
    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def GetAllParams(cls) -> list[Param]:
        """All parameters this class takes, its own first."""
        return list(cls._PARAMS.values())

    @classmethod
    def GetParam(cls, name: str) -> Param | None:
        """The declaration of one parameter, None if there is none."""
        return cls._PARAMS.get(name)

    def IsSet(self, name: str) -> bool:
        """Is the parameter in the record (and not just a default)?"""
        return name in self.__dict__

    def __getstate__(self) -> dict[str, Any]:
        """The serialised form: every set parameter, and the C{OP_ID}."""
        state = self.__dict__.copy()
        state[_ID_KEY] = self.OP_ID
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the record with these parameters; names that are not declared are left out.

        Types are not checked: what a job file of another version holds must stay readable.
        """
        known = self._PARAMS
        self.__dict__.clear()
        self.__dict__.update((name, state[name]) for name in state if name in known)

    def Validate(self, set_defaults: bool = False) -> None:
        """Check every parameter against its declaration.

        None for an optional parameter whose type does not know None means "not given", as clients
        that fill in null for everything intend it: such a parameter becomes absent.

        @param set_defaults: also put the defaults of absent parameters into the record
        @raise errors.OpPrereqError: C{wrong_input}, naming parameter and value
        """
        values = self.__dict__
        for name, param in self._PARAMS.items():
            if values.get(name) is None and not (name in values and param.type(None)):
                if param.required:
                    raise _Refuse(f"Required parameter '{name}' of {self.OP_ID} missing")
                values.pop(name, None)
                if set_defaults:
                    values[name] = param.GetDefault()
            elif not param.type(values[name]):
                raise _Refuse(
                    f"Parameter '{name}' of {self.OP_ID} must be {param.type}:"
                    f" {param.type.Problem(values[name])}"
                )

    @staticmethod
    def LoadOpCode(data: object, strict: bool = True) -> OpCode:
        """Make an opcode from its serialised form.

        Names of later versions are translated where they say the same as a name of this version
        (L{later}).

        @param data: dictionary with C{OP_ID} and the parameters
        @param strict: for what a client submits: every key must be declared, every value of its
            type, every required parameter there. Else (job files, which may come from another
            version) unknown keys are left out and values taken as they are.
        @raise errors.OpPrereqError: C{wrong_input} if C{strict}, naming parameter and value
        @raise ValueError: if not C{strict} and the data is no opcode at all
        """
        problem, cls = _FindClass(data)
        if cls is None or not isinstance(data, dict):
            if strict:
                raise _Refuse(problem)
            raise ValueError(problem)
        known = cls._PARAMS
        params = later.Translate(cls.OP_ID, data, known)
        op = cls.__new__(cls)
        op.__setstate__(params)
        if strict:
            for name in params:
                if name not in known and name != _ID_KEY:
                    raise _Refuse(_DescribeUnknown(cls, name, params[name]))
            op.Validate()
        return op

    def Summary(self) -> str:
        """What a job listing shows, e.g. C{INSTANCE_STARTUP(web1.example.com)}."""
        text = self.OP_ID[3:]
        if self.OP_DSC_FIELD is not None:
            text += f"({getattr(self, self.OP_DSC_FIELD, None)})"
        return text

    def TinySummary(self) -> str:
        """The summary with a short prefix and without a value, e.g. C{I_STARTUP}."""
        text = self.OP_ID[3:]
        for prefix, short in _TINY_PREFIXES.items():
            if text.startswith(prefix):
                return short + text[len(prefix) :]
        return text


def _FindClass(data: object) -> tuple[str, type[OpCode] | None]:
    """What is wrong with the frame of a serialised opcode, and the class if nothing is."""
    if not isinstance(data, dict):
        return f"An opcode must be an object with '{_ID_KEY}', not {ht.Show(data)}", None
    if _ID_KEY not in data:
        return f"An opcode must name itself in '{_ID_KEY}'; keys given: {ht.Show(list(data))}", None
    op_id = data[_ID_KEY]
    if not isinstance(op_id, str):
        return f"'{_ID_KEY}' must be a text, not {ht.Show(op_id)}", None
    cls = OP_MAPPING.get(later.ID_ALIASES.get(op_id, op_id))
    if cls is None:
        if op_id in later.LATER_IDS:
            return f"Opcode {op_id} is of a later version and not supported", None
        return f"Unknown opcode {ht.Show(op_id)} in '{_ID_KEY}'", None
    return "", cls


def _DescribeUnknown(cls: type[OpCode], name: object, value: object) -> str:
    if isinstance(name, str) and later.IsLaterParam(cls.OP_ID, name):
        return (
            f"Parameter '{name}' of {cls.OP_ID} with the value {ht.Show(value)} asks for a feature"
            " of a later version that is not supported"
        )
    return (
        f"Unknown parameter {ht.Show(name)} of {cls.OP_ID} (value {ht.Show(value)}); it takes"
        f" {', '.join(sorted(cls._PARAMS))}"
    )
