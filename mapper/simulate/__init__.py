"""A procedural world with ground truth, served like the real archives.

The offline demo, the test bed and the load generator. It never pretends to be real data: every
item, collection and file says that it is simulated.
"""

from mapper.simulate.archive import read_items, write_archive, write_geoparquet
from mapper.simulate.cities import DEMO_CITIES, TEST_CITIES, SimulatedCity, WorldOptions
from mapper.simulate.serve import serve_api, serve_files
from mapper.simulate.spectra import TRUTH_CLASSES
from mapper.simulate.style import STYLES, Style, find_style
from mapper.simulate.world import World

__all__ = [
    "DEMO_CITIES",
    "STYLES",
    "TEST_CITIES",
    "TRUTH_CLASSES",
    "SimulatedCity",
    "Style",
    "World",
    "WorldOptions",
    "find_style",
    "read_items",
    "serve_api",
    "serve_files",
    "write_archive",
    "write_geoparquet",
]
