"""`mapper gc`: what nothing refers to goes, and nothing else."""

import json
import os
import shutil
import time

import pytest

from mapper.errors import LockedError, UsageError
from mapper.run.garbage import drop_garbage, find_garbage
from mapper.run.layout import all_versions
from mapper.run.ledger import Ledger
from mapper.run.lock import hold_folder
from mapper.run.manifest import shard_folders, step_digests
from tests.pipelines.conftest import checksums


def shards(out):
    """Folders named by a hash, however deep."""
    found = {p.relative_to(out).as_posix() for p in out.glob("tiles/**/*") if len(p.name) == 64}
    assert found
    return found


@pytest.fixture
def two_versions(map_world, world, tmp_path):
    """A city whose second version lacks a scene of the first."""
    items = json.loads((world / "items.json").read_text())
    plain = tmp_path / "items.json"
    plain.write_text(json.dumps(items))
    map_world(cities=("Plainville",), catalog=str(plain))
    lost = next(
        f["id"]
        for f in items["features"]
        if f["collection"] == "sentinel-2-l2a" and "plainville" in f["id"]
    )
    items["features"] = [f for f in items["features"] if f["id"] != lost]
    plain.write_text(json.dumps(items))

    def again(**more):
        return map_world(cities=("Plainville",), catalog=str(plain), **more)

    assert again(refresh=True).results[0].product.endswith("v2/product")
    return tmp_path / "out", again


def test_versions_refer_to_their_shards(two_versions):
    out, _ = two_versions
    first, second = all_versions(out)
    both = shard_folders(first) | shard_folders(second)
    assert both == shards(out)
    assert shard_folders(first) - shard_folders(second)
    assert find_garbage(out).empty
    # what did not change is shared
    same = step_digests(first).items() & step_digests(second).items()
    assert {key.split("/")[0] for key, _ in same} == {"ingest"}


def test_an_old_version_goes_with_what_it_alone_was_made_of(two_versions):
    out, again = two_versions
    first, second = all_versions(out)
    only, staying = shard_folders(first) - shard_folders(second), shard_folders(second)
    before = checksums(second.product_folder)
    shown = find_garbage(out, keep=1)
    assert [v.number for v in shown.versions] == [1]
    assert {p.relative_to(out).as_posix() for p in shown.shards} == only
    assert first.path.exists(), "looking drops nothing"
    used = sum(p.stat().st_blocks for p in out.rglob("*") if p.is_file())
    dropped = drop_garbage(out, keep=1)
    assert dropped.size == shown.size > 0
    assert not first.path.exists()
    assert shards(out) == staying
    assert sum(p.stat().st_blocks for p in out.rglob("*") if p.is_file()) < used
    assert checksums(second.product_folder) == before
    assert find_garbage(out, keep=1).empty
    # the ledger still knows all that is left
    ledger = Ledger(out / "ledger")
    digests = step_digests(second)
    assert all(ledger.find(key, digest, out) for key, digest in digests.items())
    assert len(list(out.glob("ledger/*.jsonl"))) == 1
    assert again().results[0].state == "finished"
    assert again(refresh=True).results[0].state == "unchanged"


def test_shards_stay_while_a_version_is_not_finished(two_versions):
    out, _ = two_versions
    _, second = all_versions(out)
    state = json.loads(second.state_file.read_text()) | {"finished": False}
    second.state_file.write_text(json.dumps(state))
    (second.path / "shards.parquet").unlink()
    found = find_garbage(out)
    assert not found.shards
    assert found.kept_because.endswith("v2 is not finished")


def test_leftovers_of_killed_runs_go_once_they_are_nobodys(two_versions):
    out, _ = two_versions
    shard = out / min(shards(out))
    old, new = shard.with_name(".0a.11"), shard.with_name(".0b.22")
    for path in (old, new):
        shutil.copytree(shard, path)
    past = time.time() - 7200
    os.utime(old, (past, past))
    assert find_garbage(out).leftovers == (old,)
    drop_garbage(out)
    assert not old.exists()
    assert new.exists()


def test_nothing_is_dropped_while_a_run_goes_on(two_versions):
    out, _ = two_versions
    with hold_folder(out), pytest.raises(LockedError):
        drop_garbage(out)


def test_only_folders_of_runs_are_looked_through(tmp_path):
    for act in (find_garbage, drop_garbage):
        with pytest.raises(UsageError, match="no folder of a run"):
            act(tmp_path)
    assert not (tmp_path / ".lock").exists()
