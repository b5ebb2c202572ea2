"""The package: quick to import, honest about its errors."""

import inspect
import re
import subprocess
import sys

import pytest

from mapper import errors

HEAVY = ("numpy", "torch", "onnxruntime", "rasterio", "dask", "matplotlib", "xarray", "zarr")


def fresh(code):
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def loaded_after(module, candidates):
    code = f"import sys, {module}; print(*[n for n in {candidates!r} if n in sys.modules])"
    return fresh(code).split()


def test_importing_mapper_is_quick():
    code = "import time; t = time.perf_counter(); import mapper; print(time.perf_counter() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.3


def test_importing_mapper_loads_nothing_heavy():
    assert loaded_after("mapper", HEAVY) == []


def test_the_command_line_loads_no_model_library():
    assert loaded_after("mapper.cli.commands", ("torch", "onnxruntime", "matplotlib")) == []


@pytest.mark.parametrize(
    "module", ["mapper.inference.card", "mapper.inference.runtime", "mapper.product.quicklook"]
)
def test_model_libraries_are_loaded_where_they_are_needed(module):
    assert loaded_after(module, ("torch", "onnxruntime", "matplotlib")) == []


@pytest.mark.parametrize("module", ["mapper.recipe", "mapper.classes", "mapper.events"])
def test_data_modules_load_no_arrays(module):
    assert loaded_after(module, ("rasterio", "dask", "zarr", "xarray", "torch")) == []


# errors ------------------------------------------------------------------------------------


def documented():
    """Exit code of each error by the tree in the docstring, inherited where none is given."""
    codes, last = {}, None
    for line in errors.__doc__.splitlines():
        found = re.match(r"^[│├└─ ]*(\w+Error)\s+(\d)?", line)
        if found:
            name, code = found.groups()
            last = int(code) if code else last
            codes[name] = last
    return codes


def test_the_tree_lists_every_error():
    raised = {
        n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    }
    assert set(documented()) == raised


@pytest.mark.parametrize(("name", "code"), documented().items())
def test_exit_codes_are_those_of_the_tree(name, code):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.MapperError)
    assert kind.exit_code == code
    assert kind.__doc__


def test_bad_input_is_one_family():
    for kind in (errors.AreaError, errors.RecipeError, errors.ModelError):
        assert issubclass(kind, errors.InputError)
    assert not issubclass(errors.UsageError, errors.InputError)
