"""Tables, units, JSON."""

import json

import pytest

from ganeti.client import clusterinfo, console, output

_COLUMNS = output.Columns(
    {
        "name": output.Column("Node"),
        "free": output.Column("DFree", unit=True),
        "count": output.Column("Pinst", numeric=True),
        "tags": output.Column("Tags", output.FormatList),
        "up": output.Column("Up", output.FormatYN),
    },
    [(r"disk\.size/[0-9]+", output.Column(None, output.FormatDash, unit=True))],
)


def _Table(fields, rows, **kwargs):
    return output.GenerateTable(_COLUMNS, fields, rows, **kwargs)


class TestTable:
    """Layout of columns."""

    def test_alignment(self):
        lines = _Table(["name", "count", "tags"], [["a", 12345678, ["x"]], ["longer", 1, []]])
        assert lines == [
            "Node      Pinst Tags",
            "a      12345678 x",
            "longer        1 ",
        ]

    def test_only_the_header_is_filled_up_in_the_last_column(self):
        assert _Table(["count", "name"], [[1, "a-long-name"]]) == [
            "Pinst Node       ",
            "    1 a-long-name",
        ]

    def test_without_rows(self):
        assert _Table(["name", "free"], []) == ["Node DFree"]
        assert _Table(["name", "free"], [], headers=False) == []

    def test_separator_is_literal_and_nothing_is_filled_up(self):
        rows = [["a:b", 5, None]]
        assert _Table(["name", "count", "up"], rows, separator="::") == [
            "Node::Pinst::Up",
            "a:b::5::?",
        ]
        assert _Table(["name", "count"], [["a", 5]], separator="", headers=False) == ["a5"]

    def test_missing_row_is_dashes(self):
        assert _Table(["name", "count"], [None, ["a", 1]])[1:] == ["-        -", "a        1"]

    def test_unknown_field_has_its_own_name(self):
        assert _Table(["nosuch"], [["x"]]) == ["nosuch", "x     "[:1]]

    def test_fields_with_a_changing_part(self):
        assert _Table(["disk.size/1"], [[2048], [None]]) == [
            "disk.size/1",
            "       2.0G",
            "          -",
        ]

    def test_yes_no_and_lists(self):
        rows = [[True, ["a", "b"]], [False, []], [None, None]]
        assert _Table(["up", "tags"], rows, separator=":", headers=False) == ["Y:a,b", "N:", "?:?"]

    def test_roman(self):
        assert _Table(["name", "count"], [["n", 14]], headers=False, roman=True) == ["n XIV"]


class TestUnits:
    """Which unit, and how it looks."""

    @pytest.mark.parametrize(
        ("units", "separator", "expected"),
        [
            (None, None, "1.5G"),
            (None, ":", "1536"),
            (None, "", "1.5G"),
            ("h", ":", "1.5G"),
            ("m", None, "1536"),
            ("g", None, "1.5"),
            ("t", None, "0.0"),
        ],
    )
    def test_choice(self, units, separator, expected):
        lines = _Table(["free"], [[1536]], headers=False, units=units, separator=separator)
        assert [line.strip() for line in lines] == [expected]

    @pytest.mark.parametrize("word", ["-", "?", "(node down)"])
    def test_words_stay(self, word):
        assert _Table(["free"], [[word]], headers=False) == [word]


class TestJson:
    """MODERN: listings as JSON."""

    def test_raw_values(self):
        text = output.GenerateJson(["name", "free", "tags"], [["a", None, ["x"]], None])
        assert json.loads(text) == [{"name": "a", "free": None, "tags": ["x"]}, None]


class TestValues:
    """Texts of single values."""

    def test_timestamps(self):
        assert output.FormatTimestamp([1795336563, 7]).endswith(".000007")
        assert output.FormatTimestamp(None) == "?"
        assert output.FormatTime(None) == "N/A"

    def test_none(self):
        assert output.FormatPlain(None) == "?"
        assert output.FormatDash(None) == "-"
        assert output.FormatDash(0) == 0


class TestGroups:
    """Parameters in groups, as gnt-cluster info has them."""

    def test_levels(self):
        params = {"os": {"kvm": {"b": 1, "a": True}}, "z": {}}
        assert clusterinfo.FormatGroupedParams(params) == [
            "  - os:",
            "    - kvm:",
            "        a: True",
            "        b: 1",
            "  - z:",
        ]

    def test_allocators_in_the_form_that_is_taken(self):
        assert clusterinfo.FormatAllocators("hail") == "hail"
        assert clusterinfo.FormatAllocators(None) == "(none)"
        assert clusterinfo.FormatAllocators({"relocate": ["b", "a"], "allocate": ["c"]}) == (
            "allocate:c relocate:b,a"
        )


class TestImpossibleText:
    """What no terminal can show does not end a listing with a traceback."""

    def test_half_a_surrogate_pair(self, capsys):
        console.ToStdout("a\ud800b \u00e4")
        console.ToStderr("c\udfffd")
        out, err = capsys.readouterr()
        assert (out, err) == ("a\\ud800b \u00e4\n", "c\\udfffd\n")
