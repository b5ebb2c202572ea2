"""Shards: whole, immutable, the same bytes for the same pixels, and nothing half done."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.errors import StoreError
from mapper.store.shards import read_box, shard_directory, write_shards
from tests.store.conftest import (
    GRID,
    HEIGHT,
    KEYS,
    MISSING,
    REFLECTANCE,
    STATUS,
    TEMPLATES,
    pixels_of,
)

KEY = KEYS[0]


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def arrays_of(key, templates=TEMPLATES):
    return [(t, pixels_of(t, key)) for t in templates]


def leftovers(root, key=KEY, step="step"):
    folder = shard_directory(root, key, step, "x").parent
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_tiles_and_their_halo_read_as_one_mosaic(stored, template):
    halo = stored.extent.grow(37)
    whole = read_box(stored.arrays(template), template, halo, GRID.tile)
    expected = template.empty(*halo.shape)
    expected[(..., *stored.extent.slices_in(halo))] = stored.mosaic(template)
    assert whole.dtype == template.dtype
    np.testing.assert_array_equal(whole, expected)


@settings(max_examples=20)
@given(st.integers(-40, 1000), st.integers(-40, 1000), st.integers(1, 200), st.integers(1, 200))
def test_any_box_reads_as_its_part_of_the_mosaic(stored, row, col, height, width):
    extent = stored.extent
    pixels = PixelBox(
        row0=extent.row0 + row,
        col0=extent.col0 + col,
        row1=extent.row0 + row + height,
        col1=extent.col0 + col + width,
    )
    expected = np.full((height, width), STATUS.fill, STATUS.dtype)
    common = pixels.intersect(extent)
    if not common.empty:
        expected[common.slices_in(pixels)] = stored.mosaic(STATUS)[common.slices_in(extent)]
    np.testing.assert_array_equal(
        read_box(stored.arrays(STATUS), STATUS, pixels, GRID.tile), expected
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_ground_without_a_shard_is_fill(stored, template):
    values = read_box(stored.arrays(template), template, MISSING.box, GRID.tile)
    np.testing.assert_array_equal(values, template.empty(512, 512))
    nowhere = read_box({}, template, PixelBox(row0=0, col0=0, row1=3, col1=4), GRID.tile)
    np.testing.assert_array_equal(nowhere, template.empty(3, 4))


@pytest.mark.parametrize("damage", ["metadata", "shard", "both"])
def test_a_listed_shard_that_cannot_be_read_is_an_error(tmp_path, damage):
    write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    array = shard_directory(tmp_path, KEY, "step", "abc") / "s2"
    if damage in {"metadata", "both"}:
        (array / "zarr.json").unlink()
    if damage in {"shard", "both"}:
        shard = array / "c" / "0" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(StoreError, match="cannot be read"):
        read_box({KEY: array}, REFLECTANCE, KEY.box, GRID.tile)


def test_a_listed_shard_whose_bytes_are_gone_is_an_error(tmp_path):
    write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    array = shard_directory(tmp_path, KEY, "step", "abc") / "s2"
    (array / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError):
        read_box({KEY: array}, REFLECTANCE, KEY.box, GRID.tile)


# writing -----------------------------------------------------------------------------------


def test_what_is_said_of_a_shard_is_true(stored):
    for shards in stored.shards.values():
        assert [s.array for s in shards] == [t.name for t in TEMPLATES]
        for shard in shards:
            content = (stored.root / shard.path).read_bytes()
            assert shard.size == len(content)
            assert shard.sha256 == hashlib.sha256(content).hexdigest()


def test_shards_lie_under_tile_step_and_hash(stored):
    shard = stored.shards[KEY][0]
    assert shard.path == f"tiles/{KEY}/step/abc/s2/c/0/0/0"


def test_a_tile_is_one_shard_of_many_chunks(stored):
    for template in TEMPLATES:
        folder = stored.arrays(template)[KEY]
        content = json.loads((folder / "zarr.json").read_text())
        (codec,) = content["codecs"]
        grid = content["chunk_grid"]["configuration"]["chunk_shape"]
        assert codec["name"] == "sharding_indexed"
        assert codec["configuration"]["chunk_shape"] == list(template.shape(256, 256))
        assert grid == content["shape"] == list(template.shape(512, 512))
        assert len([p for p in (folder / "c").rglob("*") if p.is_file()]) == 1


def test_every_array_opens_by_itself(stored):
    for template in TEMPLATES:
        array = zarr.open_array(stored.arrays(template)[KEY], mode="r")
        np.testing.assert_array_equal(array[...], pixels_of(template, KEY))
        assert array.metadata.dimension_names == template.dimensions


def test_the_same_pixels_give_the_same_bytes(tmp_path):
    first = write_shards(tmp_path / "one", KEY, "step", "abc", arrays_of(KEY))
    second = write_shards(tmp_path / "two", KEY, "step", "abc", arrays_of(KEY))
    assert first == second
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_tile_without_any_data_is_still_a_shard(tmp_path):
    arrays = [(t, t.empty(512, 512)) for t in TEMPLATES]
    shards = write_shards(tmp_path, KEY, "step", "abc", arrays)
    assert all(s.size > 0 for s in shards)
    folder = shard_directory(tmp_path, KEY, "step", "abc")
    np.testing.assert_array_equal(
        read_box({KEY: folder / "s2"}, REFLECTANCE, KEY.box, 512), REFLECTANCE.empty(512, 512)
    )


def test_a_second_writer_changes_nothing(tmp_path):
    first = write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    before, inode = contents(tmp_path), os.stat(tmp_path / first[0].path).st_ino
    assert write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY)) == first
    assert contents(tmp_path) == before
    assert os.stat(tmp_path / first[0].path).st_ino == inode


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_shard_is_made_good_and_links_to_the_old_one_stay(tmp_path, damage):
    first = write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    shard = tmp_path / first[0].path
    os.link(shard, tmp_path / "link")
    if damage == "gone":
        shard.unlink()
    else:
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content[:1000])
    assert write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY)) == first
    assert hashlib.sha256(shard.read_bytes()).hexdigest() == first[0].sha256
    assert hashlib.sha256((tmp_path / "link").read_bytes()).hexdigest() == first[0].sha256
    (tmp_path / "link").unlink()
    assert leftovers(tmp_path) == ["abc"]


def test_other_hashes_lie_side_by_side(tmp_path):
    write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    write_shards(tmp_path, KEY, "step", "def", arrays_of(KEY))
    assert leftovers(tmp_path) == ["abc", "def"]


def test_values_of_another_shape_are_refused_and_leave_nothing(tmp_path):
    wrong = [(STATUS, pixels_of(STATUS, KEY)), (HEIGHT, np.zeros((511, 512), np.float32))]
    with pytest.raises(ValueError, match="height"):
        write_shards(tmp_path, KEY, "step", "abc", wrong)
    assert leftovers(tmp_path) == []


def test_an_error_while_computing_leaves_nothing(tmp_path):
    def arrays():
        yield STATUS, pixels_of(STATUS, KEY)
        raise KeyError("computing")

    with pytest.raises(KeyError, match="computing"):
        write_shards(tmp_path, KEY, "step", "abc", arrays())
    assert leftovers(tmp_path) == []


# other processes and bad disks -------------------------------------------------------------


def script(body):
    head = """
    import os, resource, signal, sys, time
    from pathlib import Path
    from mapper.errors import StoreError
    from mapper.store.shards import write_shards
    from tests.store.conftest import KEYS, STATUS, TEMPLATES, pixels_of
    root, KEY = Path(sys.argv[1]), KEYS[0]
    arrays = [(t, pixels_of(t, KEY)) for t in TEMPLATES]
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)]


@pytest.fixture
def start(tmp_path, request):
    """Starts a writer in a process of its own."""
    started = []

    def start_process(body):
        process = subprocess.Popen(
            [*script(body), str(tmp_path)],
            cwd=request.config.rootpath,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_that_write_at_once_do_no_damage(tmp_path, start):
    body = """
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(6):
        print([s.sha256 for s in write_shards(root, KEY, "step", f"h{number}", arrays)])
    """
    writers = [start(body), start(body)]
    assert [w.stdout.readline() for w in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [w.communicate(timeout=60)[0] for w in writers]
    assert [w.returncode for w in writers] == [0, 0]
    assert said[0] == said[1]
    assert len(set(said[0].splitlines())) == 1
    assert leftovers(tmp_path) == [f"h{n}" for n in range(6)]
    for number in range(6):
        array = shard_directory(tmp_path, KEY, "step", f"h{number}") / "s2"
        np.testing.assert_array_equal(
            zarr.open_array(array, mode="r")[...], pixels_of(REFLECTANCE, KEY)
        )


def test_a_writer_killed_half_way_leaves_nothing_under_the_final_name(tmp_path, start):
    writer = start("""
    def half():
        yield arrays[0]
        os.kill(os.getpid(), signal.SIGKILL)
    write_shards(root, KEY, "step", "abc", half())
    """)
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert all(name.startswith(".") for name in leftovers(tmp_path))
    shards = write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
    assert len(shards) == len(TEMPLATES)


def test_a_limit_on_file_size_is_a_store_error_and_leaves_nothing(tmp_path, start):
    writer = start("""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        write_shards(root, KEY, "step", "abc", arrays)
    except StoreError as reason:
        print(reason)
    """)
    said, _ = writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert "could not be written" in said
    assert leftovers(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of half a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root may mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_is_a_store_error_and_leaves_nothing(tiny_disk):
    with pytest.raises(StoreError, match="No space left"):
        write_shards(tiny_disk, KEY, "step", "abc", arrays_of(KEY))
    assert leftovers(tiny_disk) == []
    (shard,) = write_shards(
        tiny_disk, KEY, "step", "abc", [(STATUS, np.zeros((512, 512), np.uint8))]
    )
    assert (tiny_disk / shard.path).stat().st_size == shard.size


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "tiles").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="could not be written"):
        write_shards(tmp_path, KEY, "step", "abc", arrays_of(KEY))
