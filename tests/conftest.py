"""What every test may rely on: the folder of tests is a package, hypothesis has no clock."""

import sys
from pathlib import Path

from hypothesis import settings

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

settings.register_profile("mapper", deadline=None, max_examples=60)
settings.load_profile("mapper")
