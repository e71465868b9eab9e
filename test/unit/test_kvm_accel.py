"""KVM or not: decided by a trial, once for each boot of a node (BASE2)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ganeti import errors, pathutils
from ganeti.hypervisor import kvm_accel, kvm_capabilities
from ganeti.runtime import fake
from ganeti.utils import process

SOURCE = Path(__file__).parents[1] / "data/qemu/trial.S"

FINE = process.RunResult("qemu", 33)
STUCK = process.RunResult("qemu", None, 15, "", "KVM internal error. Suberror: 1\n", 2.0)
SLOW = process.RunResult("qemu", None, 15, "", "", 2.0)
#: What QEMU 7.2 says without the device.
REFUSED = process.RunResult(
    "qemu",
    1,
    stderr="Could not access KVM kernel module: No such file or directory\n"
    "qemu: failed to initialize kvm: No such file or directory\n",
)


class Node:
    """A node on which trials end as scripted."""

    def __init__(self, tmp_path, monkeypatch):
        self.rt = fake.NewRuntime(files=kvm_accel.runtime.DEFAULT.files)
        self.directory = tmp_path
        self.qemu, self.device = tmp_path / "qemu", tmp_path / "kvm"
        for path in (self.qemu, self.device):
            path.write_text("")
        self.boot_id = tmp_path / "boot_id"
        self.boot_id.write_text("boot-1\n")
        self.results, self.limits = [], []
        monkeypatch.setattr(pathutils, "BOOT_ID_FILE", str(self.boot_id))
        monkeypatch.setattr(self.rt.processes, "run", self._Run)

    def _Run(self, argv, timeout):
        self.limits.append(timeout)
        image = Path(argv[argv.index("-bios") + 1])
        assert image.read_bytes() == kvm_accel.TrialImage()
        return self.results.pop(0)

    def Ask(self, *results):
        """The answer, for which the trials with these results were needed."""
        self.results[:] = results
        caps = kvm_capabilities.Capabilities(str(self.qemu), (7, 2, 0), "pc", frozenset())
        answer = kvm_accel.KvmWorks(self.rt, caps, str(self.directory), str(self.device))
        assert self.results == [], "a trial was not made"
        assert not list(self.directory.glob("*.bios"))
        return answer


@pytest.fixture
def node(tmp_path, monkeypatch):
    return Node(tmp_path, monkeypatch)


class TestAnswer:
    @pytest.mark.parametrize(
        ("results", "works", "why"),
        [
            ([FINE], True, ""),
            ([STUCK], False, "can not run the code of a kernel"),
            ([REFUSED], False, "failed to initialize kvm: No such file"),
            # The guest has found a wrong result, or has fallen into a reset.
            ([process.RunResult("qemu", 65)], False, "exit code 65"),
            ([process.RunResult("qemu", 0)], False, "ended early"),
            # A busy node gets a second chance.
            ([SLOW, FINE], True, ""),
            ([SLOW, SLOW], False, "not ended within"),
            # Done at the very moment when it was ended: better once more.
            ([process.RunResult("qemu", 33, timeout=2.0), FINE], True, ""),
        ],
    )
    def test_answer(self, node, results, works, why):
        answer, reason = node.Ask(*results)
        assert answer is works
        assert (why in reason) if why else (reason == "")

    def test_limits(self, node):
        node.Ask(SLOW, SLOW)
        assert node.limits == [2.0, 15.0]


class TestOnce:
    """Each start of an instance after the first one does without a trial."""

    @pytest.mark.parametrize("result", [FINE, STUCK])
    def test_kept(self, node, result):
        first = node.Ask(result)
        assert node.Ask() == first

    @pytest.mark.parametrize("what", ["boot", "qemu", "device gone", "device anew", "damaged"])
    def test_asked_anew(self, node, what):
        node.Ask(STUCK)
        if what == "boot":
            node.boot_id.write_text("boot-2\n")
        elif what == "qemu":
            os.utime(node.qemu, (1, 1))
        elif what == "device gone":
            node.device.unlink()
        elif what == "device anew":
            node.device.rename(node.directory / "old")
            node.device.write_text("")
        else:
            (node.directory / "accelerator").write_text("[]")
        assert node.Ask(FINE) == (True, "")

    def test_no_place_for_the_answer(self, node):
        node.directory = node.directory / "missing"
        with pytest.raises(errors.HypervisorError, match="missing"):
            node.Ask()


class TestChoice:
    @pytest.mark.parametrize(
        ("flag", "works", "accelerator"),
        [
            ("enabled", None, "kvm"),
            ("disabled", None, "tcg"),
            ("", True, "kvm"),
            ("", False, "tcg"),
        ],
    )
    def test_choice(self, flag, works, accelerator):
        def _Works():
            assert works is not None, "nobody has to try"
            return works, ""

        assert kvm_accel.Choose(flag, _Works) == accelerator


class TestImage:
    @pytest.mark.skipif(not shutil.which("as") or not shutil.which("ld"), reason="no binutils")
    def test_is_what_its_source_says(self, tmp_path):
        for argv in (
            ["as", "--64", "-o", "trial.o", SOURCE],
            ["ld", "-m", "elf_x86_64", "-Ttext", "0xf0000", "--oformat", "binary", "-o", "trial"]
            + ["trial.o"],
        ):
            subprocess.run(argv, cwd=tmp_path, check=True)
        assert (tmp_path / "trial").read_bytes() == kvm_accel.TrialImage()
