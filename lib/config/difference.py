"""What changed between two versions of an object, as little as says it, and the way back.

A difference is a list of edits. An edit names a place by the keys and indexes that lead to it, and
has what was there and what is there now, so that it can be undone and shown without the objects:

  - C{{path, old, new}}: a value; C{old} or C{new} is missing where there was or is none;
  - C{{path, at, old, new}}: within a list, from an index on, elements were replaced by others.

All in JSON's own types. Undoing checks that what is to be undone is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..objects.base import ConfigObject, ToPlain

Edit = dict[str, Any]
Path = tuple[str | int, ...]

PATH: Final = "path"
OLD: Final = "old"
NEW: Final = "new"
AT: Final = "at"

_MISSING: Final[Any] = object()
#: These have no parts.
_SCALARS: Final = (str, int, float, type(None))

#: In the place of a secret.
HIDDEN: Final = "(hidden)"
#: Ids of DRBD disks hold their secret at this index; others are shorter.
_ID_KEYS: Final = frozenset(["logical_id", "physical_id"])
_SECRET_INDEX: Final = 5


class DoesNotFit(Exception):  # noqa: N818 - an outcome; the caller knows what to say
    """What is to be undone is not there."""


def Between(old: ConfigObject, new: ConfigObject) -> list[Edit]:
    """The difference of the plain forms (C{ToDict}) of two objects of one class.

    Costs what changed, and little more: attributes that are equal are not taken apart.
    """
    edits: list[Edit] = []
    before, after = old.__dict__, new.__dict__
    for name in sorted({*before, *after} & type(new).FIELDS):
        one, other = before.get(name), after.get(name)
        if one is other or (name not in _WITH_OBJECTS and _IsSurelySame(one, other)):
            continue
        default = _Defaults(type(new)).get(name, _MISSING)
        edits += OfValues(_Plain(one, default), _Plain(other, default), (name,))
    if old.UnknownKeys() or new.UnknownKeys():
        edits += OfValues(ToPlain(old.UnknownKeys()), ToPlain(new.UnknownKeys()))
    return edits


#: Attributes with objects in them, of any class: texts of objects do not tell if these are equal.
_WITH_OBJECTS: Final = frozenset(["nics", "disks", "children"])


def _IsSurelySame(one: Any, other: Any) -> bool:
    # Not by comparing the values: 1, 1.0 and true are not the same in a file.
    return type(one) is type(other) and (
        one == other if isinstance(one, str) else repr(one) == repr(other)
    )


def _Plain(value: Any, default: Any) -> Any:
    return default if value is None else ToPlain(value)


_DEFAULTS: Final[dict[type, Mapping[str, Any]]] = {}


def _Defaults(cls: type[ConfigObject]) -> Mapping[str, Any]:
    """What the plain form of a class shows though it was never set."""
    found = _DEFAULTS.get(cls)
    if found is None:
        found = _DEFAULTS[cls] = cls().ToDict()
    return found


def OfValues(old: Any, new: Any, path: Path = ()) -> list[Edit]:
    """The difference of two values of JSON's own types."""
    return list(_Edits(path, old, new))


def _Edits(path: Path, old: Any, new: Any) -> Iterator[Edit]:
    if old is _MISSING and new is _MISSING:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _Edits((*path, key), old.get(key, _MISSING), new.get(key, _MISSING))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _ListEdits(path, old, new)
    elif not IsSame(old, new):
        edit: Edit = {PATH: list(path)}
        if old is not _MISSING:
            edit[OLD] = old
        if new is not _MISSING:
            edit[NEW] = new
        yield edit


def _ListEdits(path: Path, old: list[Any], new: list[Any]) -> Iterator[Edit]:
    first, last = 0, 0
    shorter = min(len(old), len(new))
    while first < shorter and IsSame(old[first], new[first]):
        first += 1
    while last < shorter - first and IsSame(old[-1 - last], new[-1 - last]):
        last += 1
    gone, come = old[first : len(old) - last], new[first : len(new) - last]
    if not gone and not come:
        return
    if len(gone) == len(come) and not any(isinstance(item, _SCALARS) for item in (*gone, *come)):
        for idx, (one, other) in enumerate(zip(gone, come, strict=True), first):
            yield from _Edits((*path, idx), one, other)
    else:
        yield {PATH: list(path), AT: first, OLD: gone, NEW: come}


def IsSame(one: Any, other: Any) -> bool:
    """Would both be the same text in a file? Unlike C{==}, for which C{1} and C{True} are equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(IsSame(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(IsSame, one, other))
    # -0.0 and 0.0 are equal but for their text.
    return bool(one == other) and (not isinstance(one, float) or repr(one) == repr(other))


def Undo(document: dict[str, Any], edits: Sequence[Edit]) -> None:
    """Turn the plain form of an object into what it was before some edits, in place.

    @raise DoesNotFit: it is not what the edits made; it may have been changed in part
    """
    for edit in reversed(edits):
        _UndoOne(document, edit)


def _UndoOne(document: dict[str, Any], edit: Edit) -> None:
    *way, last = edit[PATH] if AT not in edit else (*edit[PATH], edit[AT])
    place: Any = document
    try:
        for key in way:
            place = place[key]
        if AT in edit:
            end = last + len(edit[NEW])
            if not (isinstance(place, list) and IsSame(place[last:end], edit[NEW])):
                raise DoesNotFit
            place[last:end] = edit[OLD]
            return
        there = place.get(last, _MISSING) if isinstance(place, dict) else place[last]
        if not IsSame(there, edit.get(NEW, _MISSING)):
            raise DoesNotFit
        if OLD in edit:
            place[last] = edit[OLD]
        else:
            del place[last]
    except (KeyError, IndexError, TypeError, AttributeError) as err:
        raise DoesNotFit from err


def HideSecrets(value: Any, path: Sequence[str | int] = ()) -> Any:
    """A copy of a plain object, or of a part of it, without the secrets of DRBD disks.

    @param path: where in an object the value is
    """
    if isinstance(value, dict):
        return {key: HideSecrets(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [HideSecrets(item, (*path, idx)) for idx, item in enumerate(value)]
    is_secret = len(path) > 1 and path[-2] in _ID_KEYS and path[-1] == _SECRET_INDEX
    return HIDDEN if is_secret and value is not None else value


def HideSecretsOfEdit(edit: Edit) -> Edit:
    """A copy of an edit without the secrets of DRBD disks."""
    hidden: Edit = dict(edit)
    for side in (OLD, NEW):
        if side not in edit:
            continue
        if AT in edit:
            hidden[side] = [
                HideSecrets(item, (*edit[PATH], edit[AT] + idx))
                for idx, item in enumerate(edit[side])
            ]
        else:
            hidden[side] = HideSecrets(edit[side], edit[PATH])
    return hidden


def FormatPath(path: Sequence[str | int]) -> str:
    """C{disks/0/size}."""
    return "/".join(map(str, path))
