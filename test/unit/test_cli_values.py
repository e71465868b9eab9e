"""The small languages inside of options and arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors
from ganeti.client import values


class TestKeyVal:
    """Lists of key=value."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("", {}),
            ("a=1,b=x", {"a": "1", "b": "x"}),
            ("a=,b=c=d", {"a": "", "b": "c=d"}),
            ("acpi,no_pae,-memory", {"acpi": True, "pae": False, "memory": None}),
            ("a=x\\,y\\,z,b=2", {"a": "x,y,z", "b": "2"}),
            ("a=one\\\\,b=2", {"a": "one\\", "b": "2"}),
            ("a=end\\", {"a": "end\\"}),
            ("no_x=1", {"no_x": "1"}),
        ],
    )
    def test_values(self, value, expected):
        assert values.ParseKeyVal("-B", value) == expected

    @pytest.mark.parametrize("value", ["a=1,a=2", "a,no_a", "a,-a", "=1", "a=1,,b=2"])
    def test_refused(self, value):
        with pytest.raises(errors.ParameterError) as info:
            values.ParseKeyVal("-B", value)
        assert "-B" in str(info.value)
        assert value in str(info.value)

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), st.text(max_size=10), max_size=5
        )
    )
    def test_whatever_is_escaped_comes_back(self, params):
        def Escape(value):
            return value.replace("\\", "\\\\").replace(",", "\\,")

        text = ",".join(f"{key}={Escape(value)}" for key, value in params.items())
        assert values.ParseKeyVal("-H", text) == params


class TestIdentKeyVal:
    """Groups ident:key=value."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("kvm", ("kvm", {})),
            ("kvm:", ("kvm", {})),
            ("0:size=1g,mode=ro", ("0", {"size": "1g", "mode": "ro"})),
            ("0:mac=aa:00:00:11:22:33", ("0", {"mac": "aa:00:00:11:22:33"})),
            ("no_kvm", ("kvm", False)),
            ("-kvm", ("kvm", None)),
        ],
    )
    def test_values(self, value, expected):
        assert values.ParseIdentKeyVal("-H", value) == expected

    @pytest.mark.parametrize("value", ["no_kvm:acpi=true", "-kvm:acpi=true", "kvm:a=1,a=2"])
    def test_refused(self, value):
        with pytest.raises(errors.ParameterError):
            values.ParseIdentKeyVal("-H", value)

    def test_the_last_of_two_groups_counts(self):
        groups = [("kvm", {"acpi": "true"}), ("kvm", {"pae": "true"})]
        assert values.CheckHvParamGroups(groups) == {"kvm": {"pae": "true"}}

    def test_a_hypervisor_can_not_be_taken_away(self):
        with pytest.raises(errors.OpPrereqError, match="kvm"):
            values.CheckHvParamGroups([("kvm", False)])

    def test_gaps_in_indexed_groups(self):
        groups = [("2", {"size": "1"}), ("0", {"size": "3"})]
        assert values.ParseIndexedGroups("--disk", groups) == [{"size": "3"}, {}, {"size": "1"}]
        assert values.ParseIndexedGroups("--disk", []) == []

    @pytest.mark.parametrize("ident", ["x", "-1", "add", "1.5"])
    def test_what_is_no_index(self, ident):
        with pytest.raises(errors.OpPrereqError, match=f"--disk: '{ident}'"):
            values.ParseIndexedGroups("--disk", [(ident, {})])

    @pytest.mark.parametrize("ident", ["1001", "999999999", "9" * 30])
    def test_an_index_of_a_typing_error(self, ident):
        """It does not become a list that fills the memory."""
        with pytest.raises(errors.OpPrereqError, match=f"--disk: the index {ident} is too large"):
            values.ParseIndexedGroups("--disk", [(ident, {})])


class TestOther:
    """Booleans, times, fields, sizes, numbers."""

    def test_bool(self):
        assert [values.ParseBool("-C", word) for word in ("yes", "TRUE", "No", "false")] == [
            True,
            True,
            False,
            False,
        ]
        with pytest.raises(errors.ParameterError, match="-C: '1'"):
            values.ParseBool("-C", "1")

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("30", 30),
            ("30s", 30),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86400),
            ("4w", 2419200),
            ("-5", -5),
        ],
    )
    def test_times(self, value, seconds):
        assert values.ParseTimespec(value) == seconds

    @pytest.mark.parametrize("value", ["", "s", "1.5h", "x", "1y"])
    def test_no_times(self, value):
        with pytest.raises(errors.OpPrereqError) as info:
            values.ParseTimespec(value)
        assert info.value.args[1] == errors.ECODE_INVAL

    def test_fields(self):
        default = ["name", "os"]
        assert values.ParseFields(None, default) == default
        assert values.ParseFields("a,b", default) == ["a", "b"]
        assert values.ParseFields("+a,b", default) == ["name", "os", "a", "b"]
        assert default == ["name", "os"]

    def test_nodes(self):
        assert values.SplitNodeOption("a:b:c") == ("a", "b:c")
        assert values.SplitNodeOption("a") == ("a", None)
        assert values.SplitNodeOption(None) == (None, None)

    def test_a_wrong_size_names_where_it_is(self):
        assert values.ParseSize("--disk 0", "1.5g") == 1536
        with pytest.raises(errors.OpPrereqError, match="--disk 0: .*'abc'") as info:
            values.ParseSize("--disk 0", "abc")
        assert info.value.args[1] == errors.ECODE_INVAL

    def test_numbers(self):
        assert values.ParseIntList("disks", "0,2") == [0, 2]
        with pytest.raises(errors.OpPrereqError, match="disks 'x'"):
            values.ParseIntList("disks", "x")

    def test_types(self):
        types = {"memory": constants.VTYPE_SIZE, "auto": constants.VTYPE_BOOL}
        given_ = {"memory": "1g", "auto": False}
        assert values.ForceTypes(given_, types) == {"memory": 1024, "auto": False}
        assert given_["memory"] == "1g"
        with pytest.raises(errors.TypeEnforcementError, match="nosuch"):
            values.ForceTypes({"nosuch": "1"}, types)

    def test_default_again(self):
        types = {"memory": constants.VTYPE_SIZE, "auto": constants.VTYPE_BOOL}
        assert values.ForceTypes({"memory": None, "auto": "DEFAULT"}, types, reset=True) == {
            "memory": "default",
            "auto": "default",
        }
