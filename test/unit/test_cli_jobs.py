"""Jobs as commands see them."""

import io

import pytest

from ganeti import constants, errors, luxi, opcodes, ssconf
from ganeti.client import console, failures, fake, jobs

_OP = {"OP_ID": "OP_TEST_DELAY"}


def _Client(*job_list):
    cl = fake.FakeClient()
    for job in job_list:
        cl.jobs[job.row["id"]] = job
    return cl


class _Opts:
    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)


class TestPolling:
    """One job is followed to its end."""

    def test_log_and_result(self, capsys):
        steps = [
            ("queued", []),
            ("running", [[1, [0, 0], "message", "* one"]]),
            ("running", [[2, [1, 5], "message", "two\tthree\n"], [3, [1, 6], "message", "ä\x07"]]),
            ("success", []),
        ]
        cl = _Client(fake.FakeJob("7", [_OP], ["done"], steps=steps))
        assert jobs.PollJob("7", cl) == ["done"]
        captured = capsys.readouterr()
        assert captured.err == ""
        assert [line[25:] for line in captured.out.splitlines()] == [
            "* one",
            "two\\tthree\\n",
            "ä\\x07",
        ]
        waits = [args for name, args in cl.calls if name == "WaitForJobChange"]
        assert [(info, serial) for _, _, info, serial, _ in waits] == [
            (None, None),
            (["queued"], None),
            (["running"], 1),
            (["running"], 3),
        ]

    def test_entries_that_come_with_the_end_are_not_the_last_ones(self):
        steps = [
            ("success", [[1, [0, 0], "message", "a"]]),
            ("success", [[2, [0, 0], "message", "b"]]),
            ("success", []),
        ]
        seen = []
        cl = _Client(fake.FakeJob("7", [_OP], [None], steps=steps))
        jobs.PollJob("7", cl, lambda serial, *_: seen.append(serial))
        assert seen == [1, 2]

    def test_hooks_that_take_long_are_told_once(self, capsys):
        steps = [("running", []), "nochange", "nochange", ("success", [])]
        step = "running pre hooks of node-add on node1 (each script may take 300 s)"
        job = fake.FakeJob("7", [_OP], [None], steps=steps, lock_status=step)
        jobs.PollJob("7", _Client(job))
        assert capsys.readouterr().err == f"Job 7 is {step}\n"

    def test_what_it_waits_for_is_told_once_each(self, capsys):
        steps = [
            ("queued", []),
            "nochange",
            "nochange",
            ("waiting", []),
            "nochange",
            "nochange",
            ("running", []),
            "nochange",
            ("success", []),
        ]
        jobs.PollJob("7", _Client(fake.FakeJob("7", [_OP], [None], steps=steps)))
        captured = capsys.readouterr()
        assert captured.out == ""
        told = captured.err.splitlines()
        assert told[0] == "Job 7 is waiting in queue"
        assert told[1].startswith("Job 7 is trying to acquire all necessary locks")
        assert len(told) == 2

    def test_unknown_job(self):
        with pytest.raises(errors.JobLost):
            jobs.PollJob("7", _Client())

    def test_interrupt_names_the_job(self):
        def Interrupt(*_):
            raise KeyboardInterrupt

        cl = _Client(fake.FakeJob("7", [_OP], [None], log=[(0, "x")]))
        with pytest.raises(failures.JobsGoOn) as info:
            jobs.PollJob("7", cl, Interrupt)
        assert info.value.args == ("7",)


class TestResults:
    """What the end of a job means."""

    def test_success(self):
        assert jobs.GetJobResults("1", "success", ["success"] * 2, [1, 2]) == [1, 2]

    @pytest.mark.parametrize("status", ["canceled", "canceling"])
    def test_canceled(self, status):
        with pytest.raises(errors.OpExecError, match="canceled"):
            jobs.GetJobResults("1", status, [status], [None])

    def test_first_error_is_raised_as_itself(self):
        result = ["OpPrereqError", ["no such node", errors.ECODE_NOENT]]
        with pytest.raises(errors.OpPrereqError) as info:
            jobs.GetJobResults("1", "error", ["success", "error", "error"], [1, result, "x"])
        assert info.value.args == ("no such node", errors.ECODE_NOENT)

    def test_text_of_a_later_opcode_tells_how_far_it_came(self):
        with pytest.raises(errors.OpExecError, match=r"partial failure \(opcode 1\): boom"):
            jobs.GetJobResults("1", "error", ["success", "error"], [1, "boom"])

    def test_text_of_the_first_opcode(self):
        with pytest.raises(errors.OpExecError) as info:
            jobs.GetJobResults("1", "error", ["error"], ["boom"])
        assert str(info.value) == "boom"


class TestSubmission:
    """What options of the user do to opcodes."""

    def test_dry_run_debug_priority(self):
        cl = fake.FakeClient()
        opts = _Opts(dry_run=True, debug=2, priority="high")
        jobs.SubmitOpCode(opcodes.OpClusterRedistConf(), cl, opts=opts)
        (op,) = cl.submitted[0]
        assert (op["dry_run"], op["debug_level"], op["priority"]) == (True, 2, -10)

    def test_both_are_set_on_every_opcode(self):
        cl = fake.FakeClient()
        opts = _Opts(dry_run=False, debug=0, priority=None)
        jobs.SubmitOpCode(opcodes.OpClusterRedistConf(), cl, opts=opts)
        assert cl.submitted == [
            [{"OP_ID": "OP_CLUSTER_REDIST_CONF", "dry_run": False, "debug_level": 0}]
        ]

    def test_submit_only(self, capsys):
        cl = fake.FakeClient()
        opts = _Opts(submit_only=True, print_jobid=True)
        with pytest.raises(failures.JobSubmittedException) as info:
            jobs.SubmitOrSend(opcodes.OpClusterRedistConf(), opts, cl)
        assert failures.FormatError(info.value) == (0, "JobID: 1")
        assert capsys.readouterr().out == "1\n"
        assert not [name for name, _ in cl.calls if name == "WaitForJobChange"]


class TestExecutor:
    """Several jobs at once."""

    def _Executor(self, cl, names, **kwargs):
        executor = jobs.JobExecutor(cl, **kwargs)
        for name in names:
            executor.QueueJob(name, opcodes.OpInstanceStartup(instance_name=name))
        return executor

    def test_one_request_for_all(self, capsys):
        cl = fake.FakeClient()
        results = self._Executor(cl, ["a", "b"]).GetResults()
        assert [name for name, _ in cl.calls].count("SubmitManyJobs") == 1
        assert [(result.name, result.job_id, result.success) for result in results] == [
            ("a", "1", True),
            ("b", "2", True),
        ]
        assert jobs.GetExitCode(results) == 0
        assert capsys.readouterr().out == (
            "Submitted jobs 1, 2\nWaiting for job 1 for a...\nWaiting for job 2 for b...\n"
        )

    def test_failures_of_jobs_and_of_submissions(self, capsys):
        cl = fake.FakeClient()

        def Result(op):
            if op["instance_name"] == "bad":
                return errors.OpExecError("no way")
            return None

        cl.results["OP_INSTANCE_STARTUP"] = Result
        results = self._Executor(cl, ["good", "bad"], verbose=False).GetResults()
        assert [result.success for result in results] == [True, False]
        assert jobs.GetExitCode(results) == 1
        assert capsys.readouterr().err == (
            "Job 2 for bad has failed: Failure: command execution error:\nno way\n"
        )
        cl.refuse = errors.JobQueueFull("full")
        results = self._Executor(cl, ["x"]).GetResults()
        assert jobs.GetExitCode(results) == 1
        assert capsys.readouterr().err == "Failed to submit job for x: full\n"

    def test_a_job_that_runs_is_watched_before_one_that_waits(self, capsys):
        cl = _Client(
            fake.FakeJob("1", [_OP], [None], status="queued"), fake.FakeJob("2", [_OP], [None])
        )
        executor = self._Executor(cl, ["a", "b"], verbose=False)
        executor._submitted = [[True, "1"], [True, "2"]]
        cl.jobs["1"].row["opstatus"] = ["canceled"]
        results = executor.GetResults()
        assert capsys.readouterr().out.splitlines()[0] == "Waiting for job 2 for b..."
        assert [result.job_id for result in results] == ["1", "2"]

    def test_interrupt_names_all_that_are_left(self):
        calls = []

        def Interrupt(*_):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        cl = fake.FakeClient()
        cl.logs["OP_INSTANCE_STARTUP"] = [(0, "x")]
        executor = self._Executor(cl, ["a", "b", "c"], feedback_fn=Interrupt)
        with pytest.raises(failures.JobsGoOn) as info:
            executor.GetResults()
        assert info.value.args == ("2", "3")

    def test_submit_only_prints_ids(self, capsys):
        cl = fake.FakeClient()
        results = self._Executor(cl, ["a", "b"]).WaitOrShow(False)
        captured = capsys.readouterr()
        assert captured.out == "1: a\n2: b\n"
        assert jobs.GetExitCode(results) == 0
        cl.refuse = errors.JobQueueFull("full")
        assert jobs.GetExitCode(self._Executor(cl, ["c"]).WaitOrShow(False)) == 1
        assert capsys.readouterr().err == "Failure for c: full\n"

    def test_no_jobs(self, capsys):
        assert jobs.JobExecutor(fake.FakeClient()).GetResults() == []
        assert capsys.readouterr().out == ""


class TestClient:
    """Whom to talk to."""

    @pytest.fixture(autouse=True)
    def _NoMaster(self, monkeypatch):
        def Refuse():
            raise luxi.NoMasterError("/nowhere")

        monkeypatch.setattr(luxi, "Client", Refuse)

    def test_no_cluster(self, monkeypatch):
        def Missing():
            raise errors.ConfigurationError("no file")

        monkeypatch.setattr(ssconf, "GetMasterAndMyself", Missing)
        with pytest.raises(errors.OpPrereqError, match="not part of a cluster"):
            jobs.GetClient()

    def test_not_the_master(self, monkeypatch):
        monkeypatch.setattr(ssconf, "GetMasterAndMyself", lambda: ("a", "b"))
        with pytest.raises(errors.OpPrereqError, match="node 'a'"):
            jobs.GetClient()

    def test_the_master_without_daemon(self, monkeypatch):
        monkeypatch.setattr(ssconf, "GetMasterAndMyself", lambda: ("a", "a"))
        with pytest.raises(luxi.NoMasterError):
            jobs.GetClient()


class TestErrorTexts:
    """Each class of error: text and exit code."""

    @pytest.mark.parametrize(
        ("err", "code", "text"),
        [
            (errors.ConfigurationError("bad"), 2, "Corrupt configuration file: bad\nAborting."),
            (
                errors.OpPrereqError("no", errors.ECODE_INVAL),
                1,
                "Failure: prerequisites not met for this operation:\n"
                "error type: wrong_input, error details:\nno",
            ),
            (
                errors.OpPrereqError("no"),
                1,
                "Failure: prerequisites not met for this operation:\nno",
            ),
            (errors.OpExecError("no"), 1, "Failure: command execution error:\nno"),
            (errors.HooksFailure("x"), 1, "Failure: hooks general failure: x"),
            (
                errors.HooksAbort([("n1", "s1", "out"), ("n2", "s2", "")]),
                1,
                "Failure: hooks execution failed:\n  node: n1, script: s1, output: out\n"
                "  node: n2, script: s2 (no output)",
            ),
            (errors.ResolverError("h", 1, "t"), 1, "Failure: can't resolve hostname 'h'"),
            (
                errors.ResolverError("node1.example.com", 1, "t"),
                1,
                "Failure: can't resolve my own hostname ('node1.example.com')",
            ),
            (errors.TagError("t"), 1, "Failure: invalid tag(s) given:\nt"),
            (
                errors.JobQueueDrainError(),
                1,
                "Failure: the job queue is marked for drain and doesn't accept new requests",
            ),
            (
                errors.JobQueueFull(),
                1,
                "Failure: the job queue is full and doesn't accept new job submissions until old"
                " jobs are archived",
            ),
            (errors.TypeEnforcementError("t"), 1, "Parameter Error: t"),
            (errors.ParameterError("p"), 1, "Failure: unknown/wrong parameter name 'p'"),
            (errors.LockError("l"), 1, "Unhandled Ganeti error: l"),
            (
                luxi.NoMasterError("s"),
                1,
                "Cannot communicate with the master daemon.\n"
                "Is it running and listening for connections?",
            ),
            (
                luxi.TimeoutError("t"),
                1,
                "Timeout while talking to the master daemon. Error:\nt",
            ),
            (
                luxi.DecodingError("d"),
                1,
                "Unhandled protocol error while talking to the master daemon:\nd",
            ),
            (failures.JobSubmittedException("5"), 0, "JobID: 5"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    def test_text(self, err, code, text):
        assert failures.FormatError(err) == (code, text)

    def test_every_class_has_a_text(self):
        # Those that travel; what other modules derive from them is none of a command's business.
        names = [name for name in vars(errors) if errors.GetErrorClass(name)]
        assert len(names) > 30
        for cls in map(errors.GetErrorClass, names):
            code, text = failures.FormatError(cls("something"))
            assert code != 0
            assert text.strip()
            assert "Unhandled exception" not in text

    def test_interrupt_says_how_to_go_on(self):
        code, text = failures.FormatError(failures.JobsGoOn("5", "6"))
        assert code == 1
        assert "gnt-job list 5 6" in text
        assert "gnt-job watch 5" in failures.FormatError(failures.JobsGoOn("5"))[1]


class _Terminal(io.StringIO):
    """Answers lines; keeps what is written."""

    def __init__(self, *lines):
        super().__init__()
        self._lines = list(lines)

    def readline(self, *_):
        return self._lines.pop(0) if self._lines else ""


class TestQuestions:
    """The terminal."""

    @pytest.mark.parametrize(
        ("lines", "answer"),
        [
            (["y\n"], True),
            (["YES\n"], True),
            (["n\n"], False),
            (["no\n"], False),
            (["\n"], False),
            ([], False),
            (["maybe\n", "y\n"], True),
        ],
    )
    def test_answers(self, lines, answer):
        assert console.Confirm("Sure?", _Terminal(*lines)) is answer

    def test_prompt_and_choices(self):
        terminal = _Terminal("?\n", "n\n")
        console.Confirm("word " * 30, terminal)
        written = terminal.getvalue()
        assert "y/[n]/?: " in written
        assert " y - Perform the operation\n n - Do not do the operation\n" in written
        assert max(map(len, written.splitlines())) <= 70

    def test_no_terminal_means_the_last_choice(self, monkeypatch):
        monkeypatch.setattr(console, "OpenTerminal", lambda: None)
        assert console.Confirm("Sure?") is False
        assert console.AskUser("?", [("a", 1, ""), ("b", 2, "")]) == 2

    def test_few_names_are_shown_at_once(self):
        terminal = _Terminal("y\n")
        assert console.ConfirmOperation(["a", "b"], "shutdown", terminal=terminal) is True
        assert "\nAffected instances:\n  a\n  b\n" in terminal.getvalue()
        assert "v/" not in terminal.getvalue()

    def test_many_names_on_demand(self):
        names = [f"inst{index}" for index in range(21)]
        terminal = _Terminal("v\n", "y\n")
        assert console.ConfirmOperation(names, "shutdown", terminal=terminal) is True
        before, after = terminal.getvalue().split("y/v/[n]/?: ")
        assert "inst20" not in before
        assert "  inst20\n" in after
        assert "y/[n]/?: " in after


class TestOneLine:
    """Messages of jobs stay one line each."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
            ("\x00\x1b\x7f", "\\x00\\x1b\\x7f"),
            ("grüße 漢", "grüße 漢"),
            ("\u2028", "\\u2028"),
            (["a"], "['a']"),
        ],
    )
    def test_escapes(self, text, expected):
        assert console.OneLine(text) == expected


def test_wait_time_fits_the_server():
    assert jobs._NOTICE_AFTER < luxi.WFJC_TIMEOUT
    assert constants.JOB_STATUS_RUNNING not in jobs._WAITING_STATES
