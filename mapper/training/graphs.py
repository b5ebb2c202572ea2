"""A graph from elsewhere, ONNX or TorchScript, as a model folder."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mapper.errors import ModelError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.folder import (
    Opening,
    add_asset,
    open_unchecked,
    set_fields,
    store_reference,
)
from mapper.inference.receptive import measure_field
from mapper.inference.runtime import Runtime
from mapper.store.files import write_json
from mapper.training.card import FILE_EXTENSION, MLM_EXTENSION
from mapper.training.modelfile import Graph, ModelFile
