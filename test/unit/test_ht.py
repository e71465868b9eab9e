"""Types of values from outside: what fits, what does not, and what is said about it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import ht

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)

_LEAVES = [
    # type, values that fit, values that do not
    (ht.TAny, [None, 1, "x", []], []),
    (ht.TNone, [None], [False, 0, "", []]),
    (ht.TBool, [True, False], [0, 1, None, "true"]),
    (ht.TTrue, [True], [False, 1]),
    (ht.TString, ["", "x"], [None, 1, b"x", ["x"]]),
    (ht.TNonEmptyString, ["x"], ["", None, 1]),
    (ht.TInt, [0, -1, 2**62], [True, 1.0, "1", None]),
    (ht.TPositiveInt, [1], [0, -1, True, 1.0]),
    (ht.TNonNegativeInt, [0, 1], [-1, False]),
    (ht.TFloat, [0.0, -1.5], [1, float("nan"), float("inf"), "1.0"]),
    (ht.TNumber, [1, 1.5], [True, "1", None, float("nan")]),
    (ht.TNonNegativeNumber, [0, 0.5], [-0.5, False]),
    (ht.TList, [[], (), [1]], ["x", {}, None]),
    (ht.TNonEmptyList, [[1], (1,)], [[], (), "x"]),
    (ht.TDict, [{}, {"a": 1}], [[], None]),
    (ht.TIntRange(-20, 19), [-20, 0, 19], [-21, 20, True, 0.0]),
    (ht.TRegex("[ab]+", "word of a and b"), ["a", "ab"], ["", "abc", "a\n", 1]),
    (ht.TJobId, [0, 12, "0", "12"], [-1, "-1", "", "1x", True, 1.0, "१"]),
    (ht.TElemOf("a", "b"), ["a", "b"], ["c", None, ["a"]]),
    (ht.TElemOf(frozenset(["a", "b"])), ["a"], ["c"]),
    (ht.TElemOf([0, 1]), [0, 1], [True, False, 1.0]),
    (ht.TElemOf("ab"), ["ab"], ["a"]),
    (ht.TMaybe(ht.TInt), [None, 1], ["x"]),
    (ht.TOr(ht.TInt, ht.TString), [1, "x"], [None, 1.5]),
    (ht.TAnd(ht.TInt, ht.TNonNegativeNumber), [0, 1], [-1, 1.0]),
    (ht.TListOf(ht.TInt), [[], [1, 2], (1,)], [1, ["x"], [1, None]]),
    (ht.TNonEmptyListOf(ht.TInt), [[1]], [[], ["x"]]),
    (ht.TTuple(ht.TInt, ht.TString), [[1, "a"], (1, "a")], [[], [1], [1, "a", 2], ["a", 1]]),
    (ht.TItems([ht.TInt]), [[1]], [[], ["x"]]),
    (ht.TDictOf(ht.TString, ht.TInt), [{}, {"a": 1}], [{1: 1}, {"a": "b"}, []]),
    (
        ht.TObject({"a": ht.TInt}, {"b": ht.TString}),
        [{"a": 1}, {"a": 1, "b": "x"}],
        [{}, {"a": "x"}, {"a": 1, "b": 2}, {"a": 1, "c": 1}, []],
    ),
    (ht.TObject({"a": ht.TInt}, others=True), [{"a": 1, "c": 1}], [{"c": 1}]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), _LEAVES, ids=lambda item: str(item)[:40])
def test_members(kind, good, bad):
    for value in good:
        assert kind(value) is True
        assert kind.Problem(value) is None
    for value in bad:
        assert kind(value) is False
        assert kind.Problem(value)


@pytest.mark.parametrize("kind", [row[0] for row in _LEAVES], ids=str)
@settings(max_examples=20)
@given(value=_JSON)
def test_any_value_gets_an_answer(kind, value):
    assert kind(value) is (kind.Problem(value) is None)


NAMES = [
    (ht.TListOf(ht.TNonEmptyString), "list of non-empty string"),
    (ht.TMaybe(ht.TInt), "none or integer"),
    (ht.TListOf(ht.TMaybe(ht.TInt)), "list of (none or integer)"),
    (ht.TOr(ht.TInt, ht.TListOf(ht.TInt)), "integer or list of integer"),
    (ht.TDictOf(ht.TString, ht.TAny), "dictionary of string to any value"),
    (ht.TElemOf("soft", "hard"), "one of soft, hard"),
    (ht.TElemOf(frozenset(["soft", "hard"])), "one of hard, soft"),
    (ht.TTuple(ht.TInt, ht.TString), "list of 2 items (integer, string)"),
    (ht.TNonEmptyListOf(ht.TInt), "non-empty list of integer"),
    (ht.TObject({"a": ht.TInt}, {"b": ht.TInt}), "dictionary with a, b (optional)"),
]


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])
def test_names_are_readable(kind, name):
    assert str(kind) == name


PROBLEMS = [
    (ht.TListOf(ht.TNonEmptyString), ["a", 3], "item 1: 3 is no non-empty string"),
    (ht.TMaybe(ht.TListOf(ht.TInt)), ["x"], "item 0: 'x' is no integer"),
    (ht.TElemOf("a", "b"), "c", "'c' is not one of a, b"),
    (ht.TDictOf(ht.TString, ht.TInt), {"k": None}, "entry 'k': None is no integer"),
    (ht.TDictOf(ht.TString, ht.TInt), {1: 1}, "key 1 is no string"),
    (ht.TObject({"a": ht.TInt}), {}, "entry 'a' is missing"),
    (ht.TObject({"a": ht.TInt}), {"a": 1, "z": 1}, "entry 'z' is unknown"),
    (ht.TTuple(ht.TInt, ht.TListOf(ht.TInt)), [1, ["x"]], "item 1: item 0: 'x' is no integer"),
]


@pytest.mark.parametrize(("kind", "value", "text"), PROBLEMS, ids=[row[2] for row in PROBLEMS])
def test_problems_say_where(kind, value, text):
    assert kind.Problem(value) == text


@pytest.mark.parametrize(
    "kind", [ht.TInt, ht.TNonNegativeInt, ht.TPositiveInt, ht.TNumber, ht.TNonNegativeNumber]
)
def test_no_system_call_takes_a_number_of_more_than_64_bits(kind):
    assert kind(2**63 - 1)
    assert not kind(2**63)
    assert len(kind.Problem(10**4000)) < 200


def test_a_huge_value_is_not_shown_whole():
    problem = ht.TInt.Problem("x" * 10000)
    assert problem is not None
    assert len(problem) < 200


def test_a_choice_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="at least one"):
        ht.TElemOf([])


@pytest.mark.parametrize("kind", [row[0] for row in _LEAVES], ids=str)
def test_schema_agrees_on_the_json_type(kind):
    """The schema is not decoration: its top-level type must be that of values that fit."""
    python_types = {
        "null": type(None),
        "boolean": bool,
        "string": str,
        "integer": int,
        "number": (int, float),
        "array": (list, tuple),
        "object": dict,
    }
    good = next(row[1] for row in _LEAVES if row[0] is kind)
    for value in good:
        if "type" in kind.schema:
            assert isinstance(value, python_types[kind.schema["type"]])
        if "enum" in kind.schema:
            assert value in kind.schema["enum"]
        if "pattern" in kind.schema:
            assert re.search(kind.schema["pattern"], value)
