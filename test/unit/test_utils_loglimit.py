"""The limit of a log file that others write."""

import pytest

from ganeti.utils import loglimit


@pytest.fixture
def log(tmp_path):
    with open(tmp_path / "log", "a+b", buffering=0) as fobj:
        fobj.write(b"before\n")
        yield fobj


def Content(fobj):
    fobj.seek(0)
    return fobj.read()


LINES = b"".join(b"line %03d\n" % number for number in range(200))  # of 9 bytes


class TestLogLimit:
    def test_little_is_left_alone(self, log):
        limit = loglimit.LogLimit(log.fileno(), 900)
        log.write(LINES[:900])
        limit.Check()
        assert Content(log) == b"before\n" + LINES[:900]

    def test_middle_is_cut_out(self, log):
        limit = loglimit.LogLimit(log.fileno(), 900)
        log.write(LINES)
        limit.Check()
        note = b"\n[... 1134 bytes left out ...]\n"
        # Half of the limit of the beginning, a quarter of the end, only whole lines there.
        assert Content(log) == b"before\n" + LINES[:450] + note + LINES[-216:]
        assert len(LINES) - 450 - 216 == 1134

    def test_again_and_again(self, log):
        """There is one note, that counts all."""
        limit = loglimit.LogLimit(log.fileno(), 900)
        for _ in range(10):
            log.write(LINES)
            limit.Check()
        note = b"\n[... %d bytes left out ...]\n" % (10 * len(LINES) - 450 - 216)
        assert Content(log) == b"before\n" + LINES[:450] + note + LINES[-216:]

    def test_end_without_lines(self, log):
        limit = loglimit.LogLimit(log.fileno(), 400)
        log.write(b"x" * 1000)
        limit.Check()
        assert Content(log).endswith(b"left out ...]\n" + b"x" * 100)
