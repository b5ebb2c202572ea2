"""The ledger: what was committed stays, what is damaged is dropped, nothing is made up."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapper.errors import MapperError, StoreError
from mapper.run.ledger import Entry, Ledger, Output
from tests.strategies import entries

CONTENT = {"key": "ingest/32632/10m/t512/r1c2", "components": {"recipe": "x"}, "seconds": 1.5}


def entry(number, **changes):
    return Entry(**{**CONTENT, "digest": f"{number:04x}", **changes})


def write(folder, *written):
    ledger = Ledger(folder)
    for one in written:
        ledger.commit(one)
    ledger.close()


def segments(folder):
    return sorted(p.name for p in folder.glob("*"))


def found(ledger, root, *wanted):
    return [ledger.find(e.key, e.digest, root) for e in wanted]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger"


# what is committed -------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(entries, max_size=4, unique_by=lambda e: (e.key, e.digest)))
def test_entries_are_read_back_as_they_were_committed(written):
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), *written)
        ledger = Ledger(Path(name))
        assert ledger.dropped == 0
        assert len(ledger) == len(written)
        for one in written:
            bare = Entry(**{f: getattr(one, f) for f in ("key", "digest", "components")})
            stored = ledger.find(one.key, one.digest, Path(name)) if not one.outputs else None
            assert stored in (None, one)
            assert (stored or bare).components == one.components
        latest = {e.key: e for e in written}
        assert {k: ledger.latest(k) for k in latest} == latest


def test_nothing_is_written_before_the_first_commit(folder):
    ledger = Ledger(folder)
    assert not folder.exists()
    assert len(ledger) == 0
    assert ledger.latest("x") is None


def test_an_entry_is_found_before_the_ledger_is_closed(folder, tmp_path):
    ledger = Ledger(folder)
    ledger.commit(entry(1))
    assert ledger.find(entry(1).key, "0001", tmp_path) == entry(1)
    assert Ledger(folder).find(entry(1).key, "0001", tmp_path) == entry(1)
    ledger.close()


def test_each_ledger_that_commits_writes_a_segment_of_its_own(folder):
    for number in range(12):
        write(folder, entry(number))
    Ledger(folder).close()
    assert segments(folder) == [f"{n:06d}.jsonl" for n in range(1, 13)]
    assert len(Ledger(folder)) == 12


def test_all_commits_of_one_ledger_share_a_segment(folder):
    write(folder, entry(1), entry(2), entry(3))
    assert segments(folder) == ["000001.jsonl"]


def test_later_entries_are_the_latest_and_earlier_ones_stay(folder, tmp_path):
    write(folder, entry(1), entry(2))
    write(folder, entry(3))
    ledger = Ledger(folder)
    assert ledger.latest(entry(1).key) == entry(3)
    assert found(ledger, tmp_path, entry(1), entry(2)) == [entry(1), entry(2)]


# what counts as done -----------------------------------------------------------------------


@pytest.fixture
def done(folder, tmp_path):
    """A step with two outputs that lie on the disk."""
    outputs = []
    for name, size in (("a.bin", 5), ("b.bin", 0)):
        (tmp_path / name).write_bytes(b"x" * size)
        outputs.append(Output(path=name, size=size, sha256="0" * 64))
    one = entry(1, outputs=tuple(outputs))
    write(folder, one)
    return one


def test_a_step_is_done_when_key_hash_and_outputs_are_there(folder, tmp_path, done):
    assert found(Ledger(folder), tmp_path, done) == [done]


def test_another_key_or_hash_is_not_done(folder, tmp_path, done):
    ledger = Ledger(folder)
    assert ledger.find(done.key, "0002", tmp_path) is None
    assert ledger.find("other", done.digest, tmp_path) is None


@pytest.mark.parametrize("content", [None, b"", b"xxxx", b"xxxxxx"])
def test_a_lost_or_cut_output_is_not_done(folder, tmp_path, done, content):
    path = tmp_path / "a.bin"
    path.unlink() if content is None else path.write_bytes(content)
    assert found(Ledger(folder), tmp_path, done) == [None]


def test_outputs_are_looked_for_under_the_root_that_is_given(folder, tmp_path, done):
    assert found(Ledger(folder), tmp_path / "elsewhere", done) == [None]


# damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three entries and the bytes of their segment."""
    folder = tmp_path_factory.mktemp("three")
    written = tuple(entry(n, facts={"note": "ünïcode\n"}) for n in range(3))
    write(folder, *written)
    return written, (folder / "000001.jsonl").read_bytes()


def reread(content):
    """Entries that survive in a segment with these bytes, and how many lines were dropped."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "000001.jsonl").write_bytes(content)
        ledger = Ledger(Path(name))
        numbers = [n for n in range(3) if ledger.find(CONTENT["key"], f"{n:04x}", Path(name))]
        assert len(ledger) == len(numbers)
        return [ledger.find(CONTENT["key"], f"{n:04x}", Path(name)) for n in numbers], ledger


def test_a_cut_anywhere_in_the_last_line_drops_that_line_alone(three):
    written, content = three
    start = content[:-1].rindex(b"\n") + 1
    for length in range(start, len(content) + 1):
        survivors, ledger = reread(content[:length])
        whole = length >= len(content) - 1
        assert survivors == list(written if whole else written[:2])
        assert ledger.dropped == (0 if whole or length == start else 1)


@given(st.data())
def test_a_flipped_bit_is_noticed(three, data):
    written, content = three
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    survivors, ledger = reread(bytes(damaged))
    line = content[:place].count(b"\n")
    assert survivors[:line] == list(written[:line])
    assert all(s in written for s in survivors)
    assert ledger.dropped or survivors == list(written)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(content):
    survivors, _ = reread(content)
    assert survivors == []


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'"x"', b'{"outputs":[{}]}', b'{"outputs":[],"key":"x","more":1}', b"1"]
)
def test_a_line_that_is_no_entry_is_dropped(body):
    _, ledger = reread(b"%08x %s\n" % (zlib.crc32(body), body))
    assert ledger.dropped == 1


def test_a_new_segment_follows_a_damaged_one(folder, tmp_path):
    write(folder, entry(1), entry(2))
    path = folder / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    write(folder, entry(3))
    ledger = Ledger(folder)
    assert found(ledger, tmp_path, *map(entry, (1, 2, 3))) == [entry(1), None, entry(3)]
    assert segments(folder) == ["000001.jsonl", "000002.jsonl"]


# other processes and bad disks -------------------------------------------------------------

HEAD = """
import os, resource, sys
from pathlib import Path
from mapper.errors import StoreError
from mapper.run.ledger import Entry, Ledger
ledger = Ledger(Path(sys.argv[1]))
"""


def start(folder, body):
    command = [sys.executable, "-c", HEAD + textwrap.dedent(body), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_committed_entries_survive_the_sudden_death_of_the_writer(folder, tmp_path):
    writer = start(
        folder,
        """
        for number in range(100_000):
            ledger.commit(Entry(key="k", digest=str(number)))
            os.write(1, b"%d\\n" % number)
        """,
    )
    committed = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate(timeout=30)
    committed += [int(n) for n in rest.split("\n")[:-1]]
    ledger = Ledger(folder)
    assert all(ledger.find("k", str(n), tmp_path) for n in committed)
    assert len(ledger) >= len(committed) >= 50
    assert ledger.dropped <= 1


def test_a_full_disk_is_a_store_error_and_keeps_what_was_committed(folder, tmp_path):
    writer = start(
        folder,
        """
        ledger.commit(Entry(key="k", digest="1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
        try:
            ledger.commit(Entry(key="k", digest="2"))
        except StoreError as reason:
            assert ledger.find("k", "2", Path()) is None
            print("refused:", reason, flush=True)
        os._exit(0)
        """,
    )
    said, _ = writer.communicate(timeout=30)
    assert "refused" in said
    assert "free space" in said
    ledger = Ledger(folder)
    assert ledger.find("k", "1", tmp_path)
    assert ledger.find("k", "2", tmp_path) is None


def test_closing_after_a_refused_commit_hides_no_error(folder):
    writer = start(
        folder,
        """
        ledger.commit(Entry(key="k", digest="1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
        try:
            try:
                ledger.commit(Entry(key="k", digest="2"))
            finally:
                ledger.close()
        except StoreError:
            print("store error", flush=True)
        except OSError:
            print("os error", flush=True)
        os._exit(0)
        """,
    )
    said, _ = writer.communicate(timeout=30)
    assert said == "store error\n"


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        Ledger(tmp_path / "file" / "ledger").commit(entry(1))
    assert issubclass(StoreError, MapperError)


def test_segments_are_told_apart_from_other_files(folder, tmp_path):
    write(folder, entry(1))
    (folder / "notes.txt").write_text("mine")
    (folder / ".000002.jsonl.swp").write_text("an editor's")
    write(folder, entry(2))
    assert found(Ledger(folder), tmp_path, entry(1), entry(2)) == [entry(1), entry(2)]
    assert os.path.exists(folder / "000002.jsonl")
