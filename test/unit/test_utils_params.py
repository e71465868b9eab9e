"""Conversion of parameter values to their declared types."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors
from ganeti.utils import params

TYPES = {
    "text": constants.VTYPE_STRING,
    "flag": constants.VTYPE_BOOL,
    "mem": constants.VTYPE_SIZE,
    "num": constants.VTYPE_INT,
}

GOOD = [
    ("text", "x", "x"),
    ("text", "", ""),
    ("text", False, ""),
    ("flag", True, True),
    ("flag", "true", True),
    ("flag", "TRUE", True),
    ("flag", "False", False),
    ("flag", "", False),
    ("flag", 0, False),
    ("flag", 7, True),
    ("flag", None, False),
    ("mem", 128, 128),
    ("mem", "1", 4),
    ("mem", "1.5G", 1536),
    ("mem", "2t", 2097152),
    ("num", 3, 3),
    ("num", "-3", -3),
    ("num", 3.0, 3),
]

BAD = [
    ("text", True),
    ("text", 1),
    ("text", None),
    ("text", ["x"]),
    ("flag", "yes"),
    ("flag", "truee"),
    ("mem", "lots"),
    ("mem", "1x"),
    ("mem", "1.2.3"),
    ("mem", None),
    ("num", "x"),
    ("num", ""),
    ("num", 1.5),
    ("num", True),
    ("num", None),
    ("num", [1]),
]


@pytest.mark.parametrize(("name", "value", "result"), GOOD)
def test_converted_in_place(name, value, result):
    target = {name: value}
    params.ForceDictType(target, TYPES)
    assert target == {name: result}
    assert type(target[name]) is type(result)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_refused_with_name_and_value(name, value):
    target = {name: value}
    with pytest.raises(errors.TypeEnforcementError) as info:
        params.ForceDictType(target, TYPES)
    assert f"'{name}'" in str(info.value)
    assert repr(value) in str(info.value)


def test_unknown_parameter_names_the_known_ones():
    with pytest.raises(errors.TypeEnforcementError, match="'b0gus'.*flag, mem, num, text"):
        params.ForceDictType({"b0gus": 1}, TYPES)


@pytest.mark.parametrize("target", [None, [], "text", 3])
def test_no_dictionary(target):
    with pytest.raises(errors.TypeEnforcementError):
        params.ForceDictType(target, TYPES)


def test_allowed_values_stay():
    target = {"num": "default", "flag": "auto", "mem": "5"}
    params.ForceDictType(target, TYPES, allowed_values=["default", "auto"])
    assert target == {"num": "default", "flag": "auto", "mem": 8}


def test_an_allowed_value_is_not_confused_with_an_equal_one():
    with pytest.raises(errors.TypeEnforcementError):
        params.ForceDictType({"num": True}, TYPES, allowed_values=[1])


def test_all_or_nothing():
    target = {"num": "3", "flag": "what"}
    with pytest.raises(errors.TypeEnforcementError):
        params.ForceDictType(target, TYPES)
    assert target == {"num": "3", "flag": "what"}


def test_unknown_type_is_our_mistake():
    with pytest.raises(errors.ProgrammerError, match="complex"):
        params.ForceDictType({"a": 1}, {"a": "complex"})


@given(
    st.dictionaries(
        st.sampled_from(sorted(TYPES)),
        st.none() | st.booleans() | st.integers(0, 10**6) | st.floats() | st.text(max_size=6),
    )
)
def test_a_converted_dictionary_stays_as_it_is(target):
    try:
        params.ForceDictType(target, TYPES)
    except errors.TypeEnforcementError:
        return
    again = dict(target)
    params.ForceDictType(again, TYPES)
    assert again == target


class TestBounds:
    """What no system call takes is no value of a parameter."""

    @pytest.mark.parametrize("name", ["mem", "num"])
    @pytest.mark.parametrize("value", [2**63, 10**4000, "9" * 4000])
    def test_too_large(self, name, value):
        target = {name: value}
        with pytest.raises(errors.TypeEnforcementError, match=f"parameter '{name}'") as info:
            params.ForceDictType(target, TYPES)
        assert len(str(info.value)) < 6000
        assert target == {name: value}
