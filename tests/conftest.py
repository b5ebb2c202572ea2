"""What every test may rely on: tests are a package, hypothesis has no clock, real rasters."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

settings.register_profile("mapper", deadline=None, max_examples=60)
settings.load_profile("mapper")


@pytest.fixture(scope="session")
def archive():
    """Folder of the real archive."""
    found = os.environ.get("MAPPER_TEST_ARCHIVE")
    if not found:
        pytest.skip("MAPPER_TEST_ARCHIVE is not set")
    return Path(found)
