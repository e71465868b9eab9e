"""Programs that feed each other."""

import os
import signal

import pytest

from ganeti import errors
from ganeti.utils import pipeline
from ganeti.utils.pipeline import Stage


def Sh(name, script, **values):
    return Stage(name, ["sh", "-c", script], **values)


class TestRun:
    """What one writes the next one reads; the outcome of each counts."""

    def test_data_goes_through(self, tmp_path):
        out = tmp_path / "out"
        results = pipeline.Run(
            [Sh("first", "printf abc"), Sh("second", "tr a-c A-C"), Sh("third", f"cat > {out}")]
        )
        assert [result.code for result in results] == [0, 0, 0]
        assert pipeline.DescribeFailure(results) is None
        assert out.read_text() == "ABC"

    def test_the_first_one_reads_nothing(self):
        assert pipeline.DescribeFailure(pipeline.Run([Sh("only", "! read line")])) is None

    @pytest.mark.parametrize("bad", [0, 1, 2])
    def test_each_failure_counts(self, bad):
        scripts = ["echo a", "cat", "cat >/dev/null"]
        scripts[bad] += "; echo trouble >&2; exit 3"
        results = pipeline.Run([Sh(f"stage {i}", script) for i, script in enumerate(scripts)])
        assert pipeline.DescribeFailure(results) == f"stage {bad} ended with exit code 3: trouble"

    def test_who_lost_its_reader_is_not_to_blame(self):
        results = pipeline.Run([Stage("writer", ["yes"]), Sh("reader", "exit 5")])
        assert results[0].code == -signal.SIGPIPE
        assert pipeline.DescribeFailure(results) == "reader ended with exit code 5"

    def test_a_lost_reader_that_was_content_is_told(self):
        results = pipeline.Run([Stage("writer", ["yes"]), Sh("reader", "exit 0")])
        assert pipeline.DescribeFailure(results) == "writer was ended by signal 13"

    def test_log(self, tmp_path):
        log = tmp_path / "log"
        log.write_text("before\n")
        pipeline.Run([Sh("only", "echo out; echo err >&2", log=str(log))])
        assert log.read_text() == "before\nout\nerr\n"

    def test_the_log_of_the_first_one_has_no_data(self, tmp_path):
        log = tmp_path / "log"
        pipeline.Run([Sh("a", "echo out; echo err >&2", log=str(log)), Sh("b", "cat >/dev/null")])
        assert log.read_text() == "err\n"
        assert log.stat().st_mode & 0o777 == 0o600

    def test_a_log_does_not_grow_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pipeline, "_MAX_LOG", 1000)
        log = tmp_path / "log"
        pipeline.Run([Sh("only", "echo first; seq 10000", log=str(log))])
        content = log.read_text()
        assert len(content) < 1100
        assert content.startswith("first\n1\n")
        assert "bytes left out" in content

    def test_environment(self):
        os.environ["PIPELINE_TEST"] = "leaks"
        try:
            check = 'test "$A" = 1 && test -z "$PIPELINE_TEST"'
            results = pipeline.Run([Sh("only", check, env={"A": "1"}, reset_env=True)])
        finally:
            del os.environ["PIPELINE_TEST"]
        assert pipeline.DescribeFailure(results) is None

    def test_time_is_over(self):
        results = pipeline.Run([Stage("slow", ["sleep", "60"]), Sh("reader", "cat")], timeout=0.05)
        assert results[0].timed_out
        assert "slow took too long" in pipeline.DescribeFailure(results)

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_no_such_program(self, position):
        stages = [Stage("a", ["yes"]), Stage("b", ["cat"]), Sh("c", "cat >/dev/null")]
        stages[position] = Stage("gone", ["/nosuch/program"])
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(errors.OpExecError, match="/nosuch/program"):
            pipeline.Run(stages)
        assert len(os.listdir("/proc/self/fd")) == descriptors
