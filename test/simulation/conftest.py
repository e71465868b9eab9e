"""The simulated world of these tests is importable by them as C{simworld} and so on."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
