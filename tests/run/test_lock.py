"""One run per folder: others are told who, and the dead hold nothing."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from mapper.errors import LockedError, StoreError
from mapper.run.lock import folder_is_held, hold_folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def holder(root):
    """Starts a process that holds the folder; gives it and the line that it printed."""
    started = []

    def start(before=""):
        body = f"""
        import subprocess, sys, time
        from pathlib import Path
        from mapper.run.lock import hold_folder
        with hold_folder(Path(sys.argv[1])):
            child = None
            {before}
            print(child.pid if child else "held", flush=True)
            sys.stdin.readline()
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(body), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_with_the_holders_id(root, holder):
    process, _ = holder()
    with (
        pytest.raises(LockedError, match=rf"process {process.pid} on .* since 20"),
        hold_folder(root),
    ):
        pass


def test_a_refused_process_leaves_the_holders_name(root, holder):
    process, _ = holder()
    for _ in range(2):
        with pytest.raises(LockedError, match=str(process.pid)), hold_folder(root):
            pass
    assert str(process.pid) in folder_is_held(root)


def test_the_folder_is_free_when_the_holder_is_done(root, holder):
    process, _ = holder()
    process.communicate("\n", timeout=30)
    assert folder_is_held(root) is None
    with hold_folder(root):
        assert str(os.getpid()) in folder_is_held(root)


def test_a_killed_holder_blocks_nobody(root, holder):
    process, _ = holder()
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert folder_is_held(root) is None
    with hold_folder(root):
        pass


def test_the_children_of_a_killed_holder_block_nobody(root, holder):
    sleeper = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process, child = holder(sleeper)
    try:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        with hold_folder(root):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_one_process_cannot_hold_a_folder_twice(root):
    with (
        hold_folder(root),
        pytest.raises(LockedError, match=str(os.getpid())),
        hold_folder(root),
    ):
        pass
    with hold_folder(root):
        pass


def test_an_error_inside_frees_the_folder(root):
    with pytest.raises(KeyError), hold_folder(root):
        raise KeyError("inside")
    assert folder_is_held(root) is None


def test_other_folders_are_free(root, holder, tmp_path):
    holder()
    with hold_folder(tmp_path / "other"):
        pass


def test_a_folder_that_does_not_exist_is_held_by_nobody(root):
    assert folder_is_held(root) is None
    assert not root.exists()


def test_a_lock_file_that_says_nonsense_is_no_obstacle(root):
    root.mkdir()
    (root / ".lock").write_text("nonsense" * 100)
    with hold_folder(root):
        assert f"process {os.getpid()}" in folder_is_held(root)


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--out"), hold_folder(tmp_path / "file" / "out"):
        pass
