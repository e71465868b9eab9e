"""BASE3: how long hook scripts may take."""

import pytest

from ganeti import constants, pathutils
from ganeti.utils import hooktime

DEFAULT = constants.HOOKS_TIMEOUT


class TestFile:
    @pytest.mark.parametrize(
        ("content", "seconds"), [("1", 1), ("20\n", 20), (" 0900 \n\n", 900), ("86400", 86400)]
    )
    def test_number(self, tmp_path, caplog, content, seconds):
        path = tmp_path / "timeout"
        path.write_text(content)
        assert hooktime.ReadTimeout(str(path)) == seconds
        assert caplog.messages == []

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "0",
            "-1",
            "+5",
            "1.5",
            "5 s",
            "1_0",
            "\N{ARABIC-INDIC DIGIT FIVE}",
            "86401",
            "9" * 5000,
        ],
        ids=lambda content: ascii(content[:8]),
    )
    def test_nonsense_is_logged_and_the_default_counts(self, tmp_path, caplog, content):
        path = tmp_path / "timeout"
        path.write_text(content, encoding="utf-8")
        assert hooktime.ReadTimeout(str(path)) == DEFAULT
        (message,) = caplog.messages
        assert str(path) in message
        assert "whole number of seconds from 1 to 86400" in message
        assert len(message) < 300

    def test_no_text(self, tmp_path, caplog):
        path = tmp_path / "timeout"
        path.write_bytes(b"\xff\xfe")
        assert hooktime.ReadTimeout(str(path)) == DEFAULT
        assert len(caplog.messages) == 1

    def test_missing_is_normal(self, tmp_path, caplog):
        assert hooktime.ReadTimeout(str(tmp_path / "timeout")) == DEFAULT
        assert caplog.messages == []

    def test_unreadable(self, tmp_path, caplog):
        assert hooktime.ReadTimeout(str(tmp_path)) == DEFAULT
        assert len(caplog.messages) == 1

    def test_place(self):
        assert pathutils.HOOKS_TIMEOUT_FILE.endswith("/etc/ganeti/hooks/timeout")


class TestEnvironment:
    @pytest.mark.parametrize(
        ("env", "seconds", "warnings"),
        [
            ({}, DEFAULT, 0),
            ({"GANETI_HOOKS_TIMEOUT": "5"}, 5, 0),
            ({"GANETI_HOOKS_TIMEOUT": "x"}, DEFAULT, 1),
        ],
    )
    def test_all(self, caplog, env, seconds, warnings):
        assert hooktime.GetTimeout(env) == seconds
        assert len(caplog.messages) == warnings

    def test_directory(self):
        assert hooktime.GetDirectoryTimeout(7) == 21
