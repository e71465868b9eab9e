"""What every test that runs in memory begins with and leaves."""

import os
import shutil
import sys

import pytest


@pytest.fixture(autouse=True)
def CleanPlace():
    """No test sees what another left: below the root directory, or in threads."""
    root = os.environ["GANETI_ROOTDIR"]
    os.makedirs(root, exist_ok=True)
    for name in os.listdir(root):
        shutil.rmtree(os.path.join(root, name))
    yield
    # Only tests that have imported it can have made any.
    fake = sys.modules.get("ganeti.cmdlib.fake")
    if fake is not None:
        fake.CloseWorlds()
