"""Names, units, times and quoting."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import errors
from ganeti.utils import text


class TestMatchNameComponent:
    """BASE1: commands take the shortened names of nodes and instances."""

    NAMES = ("test1.example.com", "test2.example.com", "test2.example.net")

    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            ("test1", "test1.example.com"),
            ("test1.example", "test1.example.com"),
            ("test1.example.com", "test1.example.com"),
            ("test1.ex", None),
            ("test2", None),
            ("test2.example", None),
            ("test2.example.net", "test2.example.net"),
            ("unknown", None),
            ("", None),
            ("Test1", None),
        ],
    )
    def testPartial(self, key, expected):
        assert text.MatchNameComponent(key, self.NAMES) == expected

    def testFullMatchAmongSeveral(self):
        names = ("test1.example.com", "test1.example.com.cz", "test1.example.com.it")
        assert text.MatchNameComponent("test1.example.com", names) == "test1.example.com"
        assert text.MatchNameComponent("test1.example", names) is None

    @pytest.mark.parametrize(
        ("key", "names", "expected"),
        [
            ("TEST1", ["test1.example.com"], "test1.example.com"),
            ("tEst1", ["Test1.Example.com"], "Test1.Example.com"),
            ("ROUTER.example.com", ["router.example.com", "Router.Example.com"], None),
            ("ROUTER", ["router.example.com", "router.example.net"], None),
            ("ROUTER.example", ["router.example", "router.example.com"], "router.example"),
            ("router", ["router.example.com", "ROUTER.example.net"], None),
        ],
    )
    def testCaseInsensitive(self, key, names, expected):
        assert text.MatchNameComponent(key, names, case_sensitive=False) == expected

    def testRegexCharactersAreLiteral(self):
        assert text.MatchNameComponent("te.t1", ["test1.example.com"]) is None


class TestNiceSort:
    @pytest.mark.parametrize(
        "ordered",
        [
            [],
            ["foo"],
            ["1", "2", "10", "a"],
            ["a", "b", "b2", "b10", "b10c"],
            ["bar", "foo"],
            ["0;099", "0;14266", "15;095"],
            ["node1.example.com", "node2.example.com", "node10.example.com"],
        ],
    )
    def testOrder(self, ordered):
        assert text.NiceSort(reversed(ordered)) == ordered

    def testGroupsBeyondTheEighthDoNotCountButBreakTies(self):
        long = "a1a1a1a1"
        assert text.NiceSort([long + "b10", long + "b9"]) == [long + "b10", long + "b9"]

    @given(st.lists(st.text(alphabet="ab019.-", max_size=6)))
    def testIsATotalOrder(self, names):
        result = text.NiceSort(names)
        assert sorted(result) == sorted(names)
        assert text.NiceSort(reversed(result)) == result


class TestLists:
    def testUniqueSequence(self):
        assert text.UniqueSequence([1, 2, 2, 3, 1]) == [1, 2, 3]
        assert text.UniqueSequence(["b", "a", "b"]) == ["b", "a"]

    @pytest.mark.parametrize(
        ("seq", "base", "expected"),
        [
            ([], 0, None),
            ([0, 1, 3], 0, 2),
            ([3, 4, 6], 3, 5),
            ([0, 1, 2], 0, None),
            ([1], 0, 0),
        ],
    )
    def testFirstFree(self, seq, base, expected):
        assert text.FirstFree(seq, base) == expected

    def testFirstFreeBelowBase(self):
        with pytest.raises(AssertionError):
            text.FirstFree([0, 3, 4, 6], base=3)

    def testCommaJoin(self):
        assert text.CommaJoin([]) == ""
        assert text.CommaJoin([1, "a", None]) == "1, a, None"

    def testFieldSet(self):
        fields = text.FieldSet("a", r"disk\.size/([0-9]+)")
        assert fields.Matches("a")
        assert not fields.Matches("ab")
        assert fields.Matches("disk.size/12").group(1) == "12"
        assert fields.NonMatching(["a", "b", "disk.size/x"]) == ["b", "disk.size/x"]
        fields.Extend(text.FieldSet("b|c"))
        assert fields.NonMatching(["a", "b", "c", "cd"]) == ["cd"]


class TestParseUnit:
    """PR1: values of type size accept units."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("0", 0),
            ("1", 4),
            ("2", 4),
            ("3", 4),
            ("4", 4),
            ("5", 8),
            ("124", 124),
            (124, 124),
            ("1.5G", 1536),
            ("1.8G", 1844),
            ("8.28T", 8682212),
            ("0.1M", 4),
            ("1.", 4),
            (".5g", 512),
        ],
    )
    def testRounding(self, value, expected):
        assert text.ParseUnit(value) == expected

    @pytest.mark.parametrize("separator", ["", " ", "   ", "\t", "\t "])
    @pytest.mark.parametrize(
        ("units", "factor"), [("m mb mib", 1), ("g gb gib", 1024), ("t tb tib", 1024**2)]
    )
    def testUnits(self, separator, units, factor):
        for unit in units.split():
            for form in (unit, unit.upper(), unit.capitalize()):
                assert text.ParseUnit(f"4{separator}{form}") == 4 * factor

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "-1",
            "1-G",
            "1,3G",
            "1.2.3",
            ".",
            "1.5 kb",
            "4 m b",
            "g",
            "1 G ",
            "1e3",
            "1\nG",
            None,
        ],
    )
    def testRefused(self, value):
        with pytest.raises(errors.UnitParseError, match="size"):
            text.ParseUnit(value)

    @given(st.integers(0, 10**9))
    def testMultipleOfFour(self, mebibytes):
        result = text.ParseUnit(str(mebibytes))
        assert result % 4 == 0
        assert 0 <= result - mebibytes < 4


class TestFormatUnit:
    @pytest.mark.parametrize(
        ("value", "units", "expected"),
        [
            (1, "h", "1M"),
            (100, "h", "100M"),
            (1023, "h", "1023M"),
            (1024, "h", "1.0G"),
            (1536, "h", "1.5G"),
            (1024 * 1024 - 1, "h", "1024.0G"),
            (1024 * 1024, "h", "1.0T"),
            (5 * 1024 * 1024, "h", "5.0T"),
            (1, "m", "1"),
            (1.4, "m", "1"),
            (1024 * 1024, "m", "1048576"),
            (1024, "g", "1.0"),
            (1024 * 1024, "g", "1024.0"),
            (1024 * 1024, "t", "1.0"),
        ],
    )
    def testText(self, value, units, expected):
        assert text.FormatUnit(value, units) == expected

    @pytest.mark.parametrize("units", ["", "G", "mh", "x"])
    def testUnknownUnit(self, units):
        with pytest.raises(errors.ProgrammerError):
            text.FormatUnit(1, units)


class TestNumbers:
    def testBytesToMebibyte(self):
        assert text.BytesToMebibyte(0) == 0
        assert text.BytesToMebibyte(1024 * 1024) == 1
        assert text.BytesToMebibyte(1.6 * 1024 * 1024) == 2

    def testTryConvert(self):
        assert text.TryConvert(int, "12") == 12
        assert text.TryConvert(int, "a") == "a"
        assert text.TryConvert(int, None) is None

    def testTryConvertLetsOtherErrorsPass(self):
        with pytest.raises(KeyError):
            text.TryConvert({}.__getitem__, "a")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(1, "I"), (4, "IV"), (9, "IX"), (1994, "MCMXCIV"), (4999, "MMMMCMXCIX"), (0, 0), (-1, -1)],
    )
    def testRoman(self, value, expected):
        assert text.TryToRoman(value) == expected
        assert text.TryToRoman(value, convert=False) == value

    @pytest.mark.parametrize("value", [None, "12", 1.5, True, 5000])
    def testNoRoman(self, value):
        assert text.TryToRoman(value) is value


class TestTime:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (1, (1, 0)),
            (1.5, (1, 500000)),
            (1218448917.4809151, (1218448917, 480915)),
            (123.48012, (123, 480120)),
            (123.9995, (123, 999500)),
            (123.999999999, (123, 999999)),
        ],
    )
    def testSplit(self, value, expected):
        assert text.SplitTime(value) == expected

    def testMerge(self):
        assert text.MergeTime((1, 500000)) == 1.5
        assert text.MergeTime((1218448917, 481000)) == pytest.approx(1218448917.481)

    @pytest.mark.parametrize("value", [(0, -1), (0, 1000000), (-1, 0)])
    def testMergeRanges(self, value):
        with pytest.raises(AssertionError):
            text.MergeTime(value)

    def testSplitNegative(self):
        with pytest.raises(AssertionError):
            text.SplitTime(-1)

    @pytest.mark.parametrize("value", [None, "", "now", [1], True])
    def testFormatNoTime(self, value):
        assert text.FormatTime(value) == "N/A"

    def testFormat(self):
        # a whole day around it, whatever the zone is
        assert text.FormatTime(1000000000).startswith("2001-09-")
        assert len(text.FormatTime(1000000000.7)) == len("2001-09-09 01:46:40")


class TestSafeEncode:
    @given(st.binary())
    def testAnyBytesIdempotentAndPrintable(self, data):
        once = text.SafeEncode(data)
        assert text.SafeEncode(once) == once
        assert all(32 <= ord(char) < 127 for char in once)

    @given(st.text())
    def testAnyTextIdempotentAndPrintable(self, value):
        once = text.SafeEncode(value)
        assert text.SafeEncode(once) == once
        assert all(32 <= ord(char) < 127 for char in once)

    def testPrintableAsciiUnchanged(self):
        plain = "".join(c for c in string.printable if c not in "\t\n\r\x0b\x0c")
        assert text.SafeEncode(plain) == plain

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
            ("\0\x1b\x7f", "\\x00\\x1b\\x7f"),
            (b"\xff\x00", "\\xff\\x00"),
            ("\u00e9", "\\xe9"),
            ("\u20ac", "\\u20ac"),
            ("\U0001f600", "\\U0001f600"),
            (b"\xff".decode("utf-8", "surrogateescape"), "\\xff"),
        ],
    )
    def testEscapes(self, value, expected):
        assert text.SafeEncode(value) == expected


class TestUnescapeAndSplit:
    @pytest.mark.parametrize("sep", [",", "+", ".", ":"])
    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ([], [""]),
            (["a", "b", "c"], ["a", "b", "c"]),
            (["a", ""], ["a", ""]),
            (["a\\", "b", "c"], ["a{sep}b", "c"]),
            (["a\\\\", "b", "c"], ["a\\", "b", "c"]),
            (["a\\\\\\", "b", "c"], ["a\\{sep}b", "c"]),
            (["a\\", "b\\", "c"], ["a{sep}b{sep}c"]),
            (["a\\x"], ["ax"]),
            (["a", "b\\"], ["a", "b\\"]),
        ],
    )
    def testSplit(self, sep, parts, expected):
        wanted = [part.replace("{sep}", sep) for part in expected]
        assert text.UnescapeAndSplit(sep.join(parts), sep=sep) == wanted

    @given(st.lists(st.text(alphabet="a,\\"), min_size=1))
    def testInverseOfEscaping(self, parts):
        escaped = [part.replace("\\", "\\\\").replace(",", "\\,") for part in parts]
        assert text.UnescapeAndSplit(",".join(escaped)) == parts


class TestLineSplitter:
    def testWholeLinesOnly(self):
        lines = []
        splitter = text.LineSplitter(lines.append)
        splitter.write("one\r\ntw")
        assert lines == []
        splitter.flush()
        assert lines == ["one"]
        splitter.write("o\nthree")
        splitter.flush()
        assert lines == ["one", "two"]
        splitter.close()
        assert lines == ["one", "two", "three"]

    def testArguments(self):
        calls = []
        splitter = text.LineSplitter(lambda *args: calls.append(args), 999, "x")
        splitter.write("a\n\nb\n")
        splitter.close()
        assert calls == [("a", 999, "x"), ("", 999, "x"), ("b", 999, "x")]


class TestShell:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [("ab-c.d,e=f:/_+@1", "ab-c.d,e=f:/_+@1"), ("", "''"), ("a b", "'a b'"), ("$a", "'$a'")],
    )
    def testQuote(self, value, expected):
        assert text.ShellQuote(value) == expected

    def testQuoteArgs(self):
        assert text.ShellQuoteArgs(["a", "b c", ""]) == "a 'b c' ''"

    def testBuildShellCmd(self):
        assert text.BuildShellCmd("ls %s %s", "/a/b", "x@y%z:1+2") == "ls /a/b x@y%z:1+2"

    @pytest.mark.parametrize("word", ["", "ls;rm", "a b", "'", "$x", "a\n", "ä", "`id`"])
    def testBuildShellCmdRefuses(self, word):
        assert not text.IsValidShellParam(word)
        with pytest.raises(errors.ProgrammerError):
            text.BuildShellCmd("echo %s", word)

    def testPluginNames(self):
        assert text.IsPluginName("00-test_A9")
        for name in ("", "a.b", "a b", "a/b", "a\n", ".a"):
            assert not text.IsPluginName(name)


class TestMac:
    def testNormal(self):
        assert text.NormalizeAndValidateMac("AA:00:11:bB:cc:DD") == "aa:00:11:bb:cc:dd"

    @pytest.mark.parametrize(
        "mac",
        ["", "aa:00:11:22:33", "aa:00:11:22:33:4g", "aa-00-11-22-33-44", "aa:00:11:22:33:44\n"],
    )
    def testRefused(self, mac):
        with pytest.raises(errors.OpPrereqError) as info:
            text.NormalizeAndValidateMac(mac)
        assert info.value.args[1] == errors.ECODE_INVAL
