"""C{python -m ganeti.vcluster}."""

import sys

from . import main

sys.exit(main.Main())
