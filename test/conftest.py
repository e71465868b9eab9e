"""Tests run below a root directory of their own: no test sees the paths of the machine."""

import os
import tempfile

_ROOT = tempfile.mkdtemp(prefix="ganeti-test-")
os.environ["GANETI_ROOTDIR"] = os.path.join(_ROOT, "node1.example.com")
os.environ["GANETI_HOSTNAME"] = "node1.example.com"
os.makedirs(os.environ["GANETI_ROOTDIR"])
