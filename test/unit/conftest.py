"""No test sees what another left below the root directory."""

import os
import shutil

import pytest


@pytest.fixture(autouse=True)
def _EmptyRoot():
    root = os.environ["GANETI_ROOTDIR"]
    os.makedirs(root, exist_ok=True)
    for name in os.listdir(root):
        shutil.rmtree(os.path.join(root, name))
