"""Running allocator scripts on a node."""

import os
import tempfile

import pytest

from ganeti import constants, errors
from ganeti.backend import iallocator


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where the input of scripts is put, and nothing else."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    assert list(directory.iterdir()) == []


class TestIAllocator:
    """IA1: scripts are found, run with limits, and cleaned up after; the fixture looks whether."""

    def _Script(self, tmp_path, body, mode=0o755, directory="second"):
        path = tmp_path / directory / "alloc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(mode)

    def _Run(self, tmp_path, name="alloc", **kwargs):
        path = [str(tmp_path / "first"), str(tmp_path / "second")]
        return iallocator.IAllocatorRunner(name, '{"in": 1}', path, **kwargs)

    def _Refused(self, tmp_path, match, **kwargs):
        with pytest.raises(errors.RPCFail, match=match):
            self._Run(tmp_path, **kwargs)

    def test_run(self, tmp_path, caplog):
        self._Script(
            tmp_path,
            f'(echo $#; pwd; stat -c %a "$1"; wc -c) > {tmp_path}/seen; cat "$1"; echo hm >&2',
        )
        assert self._Run(tmp_path) == '{"in": 1}'
        assert (tmp_path / "seen").read_text().split() == ["1", "/", "600", "0"]
        assert "alloc says: hm" in caplog.text

    def test_failure(self, tmp_path):
        self._Script(tmp_path, "echo bad luck; exit 2")
        self._Refused(tmp_path, "exit code 2, output 'bad luck'")
        self._Script(tmp_path, "kill -9 $$")
        self._Refused(tmp_path, "signal 9")

    def test_takes_too_long(self, tmp_path):
        self._Script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
        self._Refused(tmp_path, "timeout of 0.2 s", timeout=0.2)
        assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")

    def test_endless_output(self, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "IALLOCATOR_MAX_OUTPUT", 1 << 20)
        self._Script(tmp_path, "yes | head -c 3000000")
        self._Refused(tmp_path, "more than the 1 MiB")
        self._Script(tmp_path, "yes | head -c 1048576")
        assert len(self._Run(tmp_path)) == 1 << 20

    def test_long_words_of_a_failed_one(self, tmp_path):
        self._Script(tmp_path, "yes | head -c 300000; echo the end; exit 1")
        with pytest.raises(errors.RPCFail, match="the end'$") as err:
            self._Run(tmp_path)
        assert len(str(err.value)) < 2 * constants.HOOKS_MAX_OUTPUT

    def test_not_executable(self, tmp_path):
        self._Script(tmp_path, "echo no", mode=0o644, directory="first")
        self._Refused(tmp_path, "can not be executed.*first/alloc")
        # Another one of that name can
        self._Script(tmp_path, "echo yes")
        assert self._Run(tmp_path) == "yes\n"

    def test_the_first_one_is_run(self, tmp_path):
        self._Script(tmp_path, "echo second")
        self._Script(tmp_path, "echo first", directory="first")
        assert self._Run(tmp_path) == "first\n"

    def test_no_program(self, tmp_path):
        self._Script(tmp_path, "")
        (tmp_path / "second" / "alloc").write_text("#!/no/such/interpreter\n")
        self._Refused(tmp_path, "could not be run")

    @pytest.mark.parametrize("name", ["missing", "../second/alloc", "a.b"])
    def test_not_found(self, tmp_path, name):
        self._Script(tmp_path, "")
        self._Refused(tmp_path, "not found", name=name)
