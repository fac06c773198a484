import os
import subprocess
import sys
from pathlib import Path

import pytest

from signalbox.errors import ConfigError, Conflict
from signalbox.supervision import lock
from tests.support.eventually import eventually


def _orphan(fd: int) -> "subprocess.Popen[bytes]":
    """A process that holds the lock until its stdin is closed."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.communicate()


def test_a_second_node_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    """The refusal names the owner's process, its start, its address and the data directory, and exits with 7."""
    first = lock.acquire(tmp_path, node="one")
    first.describe(http="http://127.0.0.1:8080")
    with pytest.raises(Conflict) as refusal:
        lock.acquire(tmp_path, node="two", wait_s=60.0)
    first.release()
    message = str(refusal.value)
    assert refusal.value.exit_code == 7
    assert f"node one (process {os.getpid()}, since {first.owner.started_at:%Y-%m-%d %H:%M:%S} UTC" in message
    assert "http://127.0.0.1:8080" in message
    assert str(tmp_path) in message


def test_a_released_directory_can_be_taken_again(tmp_path: Path) -> None:
    """After the first node's end the next one gets the directory."""
    lock.acquire(tmp_path, node="one").release()
    lock.acquire(tmp_path, node="two").release()


def test_the_directory_is_created(tmp_path: Path) -> None:
    """A data directory that does not exist yet is made."""
    lock.acquire(tmp_path / "a" / "b", node="one").release()
    assert (tmp_path / "a" / "b" / "lock").is_file()


def test_an_orphan_of_a_dead_node_keeps_the_directory_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a child of a dead supervisor lives nobody else gets the directory; after its end, the next one does."""
    held = lock.acquire(tmp_path, node="one")
    orphan = _orphan(held.fd)
    held.release()
    monkeypatch.setattr(lock, "_alive", lambda _owner: False)
    with pytest.raises(Conflict, match="its owner is gone, but processes it started did not end"):
        lock.acquire(tmp_path, node="two", wait_s=0.1)
    _end(orphan)
    lock.acquire(tmp_path, node="two", wait_s=0.1).release()


def test_the_next_node_waits_for_orphans_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan that ends within the wait is not an error."""
    held = lock.acquire(tmp_path, node="one")
    orphan = _orphan(held.fd)
    held.release()
    looked = 0

    def alive(_owner: object) -> bool:
        nonlocal looked
        looked += 1
        if looked == 3:
            _end(orphan)
        return False

    monkeypatch.setattr(lock, "_alive", alive)
    lock.acquire(tmp_path, node="two", wait_s=10.0).release()
    assert looked >= 3


def test_an_owner_is_told_from_a_later_process_with_its_id(tmp_path: Path) -> None:
    """A process that got the dead owner's id later is not taken for the owner."""
    held = lock.acquire(tmp_path, node="one")
    held.release()
    assert lock._alive(held.owner)
    earlier = {"process_started_at": held.owner.process_started_at - 100}
    assert not lock._alive(lock.msgspec.structs.replace(held.owner, **earlier))


def test_a_zombie_is_not_alive() -> None:
    """A killed owner that nobody has reaped yet counts as dead."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = lock.psutil.Process(child.pid).create_time()
    owner = lock.Owner(pid=child.pid, node="n", started_at=lock.datetime.now(lock.UTC), process_started_at=started)
    eventually(lambda: not lock._alive(owner))
    child.wait()


def test_a_directory_that_cannot_be_made_is_a_bad_setting(tmp_path: Path) -> None:
    """A path below a file ends with exit code 3 and a hint."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used") as refusal:
        lock.acquire(tmp_path / "file" / "data", node="one")
    assert "--data-dir" in str(refusal.value.hint)
