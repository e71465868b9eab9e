"""Tests run below a root directory of their own: no test sees the paths of the machine."""

import atexit
import os
import shutil
import tempfile

import hypothesis

# How long an example takes on a busy machine says nothing of the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

_ROOT = tempfile.mkdtemp(prefix="ganeti-test-")
atexit.register(shutil.rmtree, _ROOT, ignore_errors=True)

os.environ["GANETI_ROOTDIR"] = os.path.join(_ROOT, "node1.example.com")
os.environ["GANETI_HOSTNAME"] = "node1.example.com"
os.makedirs(os.environ["GANETI_ROOTDIR"])
