"""What all objects of the configuration have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from .. import constants, errors

if TYPE_CHECKING:
    from typing import Self

_T = TypeVar("_T", bound="ConfigObject")


def FillDict(
    defaults: Mapping[str, Any], custom: Mapping[str, Any], skip_keys: Iterable[str] | None = None
) -> dict[str, Any]:
    """Defaults overlaid with custom values, without some keys; shares nothing with the defaults."""
    filled = copy.deepcopy(dict(defaults))
    filled.update(custom)
    for key in skip_keys or ():
        filled.pop(key, None)
    return filled


def UpgradeGroupedParams(
    target: Mapping[str, Mapping[str, Any]] | None, defaults: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Groups of parameters with every group filled from the defaults.

    @param target: group -> parameters; None gives the group C{default} alone
    """
    if target is None:
        return {constants.PP_DEFAULT: FillDict(defaults, {})}
    return {group: FillDict(defaults, params) for group, params in target.items()}


def ToPlain(value: Any) -> Any:
    """The value in JSON's own types, sharing no container with it; sets become sorted lists."""
    if isinstance(value, dict):
        return {key: ToPlain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [ToPlain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, ConfigObject):
        return value.ToDict()
    return value


class Codec(NamedTuple):
    """How one attribute is rebuilt from its plain form: its container, and what to make of it."""

    container: type
    make: Callable[[Any], Any]


def ObjectOf(cls: type[_T]) -> Codec:
    """One object."""
    return Codec(dict, cls.FromDict)


def ListOf(cls: type[_T]) -> Codec:
    """A list of objects."""
    return Codec(list, lambda items: [cls.FromDict(item) for item in items])


def DictOf(cls: type[_T]) -> Codec:
    """A dictionary name -> object."""
    return Codec(dict, lambda items: {name: cls.FromDict(item) for name, item in items.items()})


#: Unordered in memory, a list on disk.
SET = Codec(list, set)
#: Immutable in memory, a list on disk.
TUPLE = Codec(list, tuple)


class ConfigObject:
    """An object with declared attributes.

    The attributes are the annotations of the class and of those it derives from. Reading a declared
    attribute that was never set gives None; an undeclared one is an AttributeError, for reading and
    for writing. Objects are compared by identity.

    @cvar FIELDS: names of all declared attributes
    """

    FIELDS: ClassVar[frozenset[str]] = frozenset()
    #: How attributes that hold more than plain values are rebuilt.
    _CODECS: ClassVar[Mapping[str, Codec]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The class's own ones; asking the inspect module costs every command its import
        annotations: dict[str, str] = cls.__dict__.get("__annotations__", {})
        own = [name for name, kind in annotations.items() if not kind.startswith("ClassVar")]
        cls.FIELDS = cls.FIELDS.union(own)

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.FIELDS:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        self.__dict__[name] = value

    # Type checkers shall go by the annotations alone.
    if not TYPE_CHECKING:

        def __getattr__(self, name):
            # Only reached for what is not set
            if name not in type(self).FIELDS:
                raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

    def __repr__(self) -> str:
        name = self.__dict__.get("name") or self.__dict__.get("uuid") or ""
        return f"<{type(self).__name__} {name}>"

    def ToDict(self) -> dict[str, Any]:
        """The object in JSON's own types; shares nothing with it.

        Holds every declared attribute that is not None, and what else L{FromDict} found.
        """
        plain: dict[str, Any] = ToPlain(self.UnknownKeys())
        for name, value in self.__dict__.items():
            if value is not None and name != _UNKNOWN:
                plain[name] = ToPlain(value)
        return plain

    @classmethod
    def FromDict(cls, data: Mapping[str, Any]) -> Self:
        """The object with that plain form; shares nothing with it.

        @raise errors.ConfigurationError: no dictionary, or not of the form of this class
        """
        if not isinstance(data, dict):
            raise errors.ConfigurationError(
                f"Expected a dictionary for {cls.__name__}, got {type(data).__name__}"
            )
        obj = cls()
        unknown: dict[str, Any] = {}
        for name, value in data.items():
            if name not in cls.FIELDS:
                unknown[name] = ToPlain(value)
            elif value is not None:
                obj.__dict__[name] = cls._Decode(name, value)
        if unknown:
            obj.__dict__[_UNKNOWN] = unknown
        return obj

    @classmethod
    def _Decode(cls, name: str, value: Any) -> Any:
        codec = cls._CODECS.get(name)
        if codec is None:
            return ToPlain(value)
        if isinstance(value, (tuple, set, frozenset)):
            value = list(value)
        if not isinstance(value, codec.container):
            raise errors.ConfigurationError(
                f"{cls.__name__}: '{name}' must be a {codec.container.__name__},"
                f" not {type(value).__name__}"
            )
        try:
            return codec.make(value)
        except TypeError as err:
            raise errors.ConfigurationError(f"{cls.__name__}: '{name}' is broken: {err}") from err

    def UnknownKeys(self) -> dict[str, Any]:
        """What L{FromDict} found under names that this version does not know."""
        unknown: dict[str, Any] = self.__dict__.get(_UNKNOWN, {})
        return unknown

    def Copy(self) -> Self:
        """An independent copy."""
        return self.FromDict(self.ToDict())

    def UpgradeConfig(self) -> None:
        """Fill in what files of older versions lack; called once after loading, top-down."""


#: Where an object keeps its unknown keys; no legal attribute name, so nothing can clash with it.
_UNKNOWN = "unknown keys"


class TaggableObject(ConfigObject):
    """An object with tags: a set in memory, a sorted list on disk."""

    tags: set[str]

    _CODECS: ClassVar[Mapping[str, Codec]] = {"tags": SET}

    @staticmethod
    def ValidateTag(tag: object) -> None:
        """Check the form of a tag: 1 to 128 letters, digits and C{_ . + * / : @ -}.

        @raise errors.TagError: it has another form
        """
        if not isinstance(tag, str):
            raise errors.TagError(f"Invalid tag type (not a string): {tag!r}")
        if len(tag) > constants.MAX_TAG_LEN:
            raise errors.TagError(f"Tag too long (>{constants.MAX_TAG_LEN} characters): {tag!r}")
        if not tag:
            raise errors.TagError("Tags cannot be empty")
        if not constants.TAG_RE.match(tag):
            raise errors.TagError(
                f"Tag contains invalid characters: {tag!r};"
                " allowed are letters, digits and _.+*/:@-"
            )

    def GetTags(self) -> set[str]:
        """The live set of tags."""
        tags: set[str] | None = self.__dict__.get("tags")
        if tags is None:
            tags = self.tags = set()
        return tags

    def AddTag(self, tag: str) -> None:
        """Add a tag.

        @raise errors.TagError: it has a wrong form, or there are 4096 already
        """
        self.ValidateTag(tag)
        tags = self.GetTags()
        if tag not in tags and len(tags) >= constants.MAX_TAGS_PER_OBJ:
            raise errors.TagError(f"Too many tags: {self!r} has {len(tags)}, the most it can have")
        tags.add(tag)

    def RemoveTag(self, tag: str) -> None:
        """Remove a tag.

        @raise errors.TagError: it has a wrong form, or is not there
        """
        self.ValidateTag(tag)
        try:
            self.GetTags().remove(tag)
        except KeyError:
            raise errors.TagError(f"Tag not found: {tag!r}") from None
