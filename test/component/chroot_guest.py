"""A file system with a tiny guest for the chroot hypervisor, made of programs of this machine."""

import re
import shutil
import subprocess

#: The guest's own program: how it behaves is in the file /mode.
INIT = """#!/bin/sh
mode=$(cat /mode)
case $1 in
start)
  echo "line 1"; echo "starting as $mode"
  case $mode in
    fail) sleep 1000 & i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "no $i"; done; exit 3;;
    empty) exit 0;;
    stubborn) (trap '' TERM; echo $$ > /run/pid; while :; do sleep 1; done) & ;;
    nested)
      mount -t tmpfs none /run; mkdir /run/deep; mount -t tmpfs none /run/deep; sleep 1000 & ;;
    *) sleep 1000 & ;;
  esac;;
stop) echo stopped >> /stops; [ "$mode" != nostop ] || { echo "I will not"; exit 1; };;
esac
"""
PROGRAMS = ("sh", "sleep", "cat", "mount", "mkdir")


def Missing():
    """What such a guest needs and this machine does not have."""
    return [name for name in (*PROGRAMS, "mkfs.ext4", "ldd") if not shutil.which(name)]


def MakeTree(tree, mode, init=INIT):
    """Fill a directory with the guest's files."""
    for name in ("bin", "dev", "run"):
        (tree / name).mkdir(parents=True)
    for name in PROGRAMS:
        program = shutil.which(name)
        shutil.copy(program, tree / "bin" / name)
        needed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for path in re.findall(r"(/\S+) \(0x", needed):
            target = tree / path.lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    # The shell wants one for what runs in the background.
    (tree / "dev" / "null").touch()
    (tree / "mode").write_text(mode)
    (tree / "ganeti-chroot").write_text(init)
    (tree / "ganeti-chroot").chmod(0o755)


def MakeImage(image, tree):
    """An ext4 file system with the files of a directory; 16 MiB."""
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-d", tree, image, "16M"], check=True, capture_output=True
    )
