"""A flow's recovery directory as a whole: `RecoveryStore`, which implements `signalbox.ports.RecoveryKeeper`.

Three locks, whose files hold nothing: `engine.lock` is held while something is checked or changed at a start,
`copies.lock` while a copy is made or used, and `in-use.lock` is shared by the workers as long as they live.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from connectors.recovery import checks, copies, engine, fallback
from connectors.recovery.beginnings import FILES, ORIGINS, beginnings, write_beginnings
from connectors.recovery.engine import EngineState
from signalbox.durable import Unreadable, read_document, write_document
from signalbox.errors import Conflict, StateDamaged
from signalbox.ports import Damage, KeptCopy, Prepared, RecoveryReport
from signalbox.telemetry.logs import get_logger

_CHECKED, _SUSPECT = "checked.json", "suspect.json"
_ENGINE_LOCK, _COPIES_LOCK, _IN_USE_LOCK = "engine.lock", "copies.lock", "in-use.lock"
#: How often a running flow is looked at before what is missing counts as damage.
_LOOKS = 3

log = get_logger(__name__)


class RecoveryStore:
    """See `signalbox.ports.RecoveryKeeper`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> Prepared:
        """See `RecoveryKeeper`. What one process has checked, the others of its start need not check again."""
        if not self.directory.is_dir():
            return Prepared()  # the first worker makes it
        with self.prepared() as done:
            return done

    @contextlib.contextmanager
    def prepared(self) -> Iterator[Prepared]:
        """What `prepare` does, and then the lock, for a worker that has to make the engine's store."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.directory / _ENGINE_LOCK):
            if (done := fallback.finish(self.directory)) is not None:
                self._tell(done)
            yield self._check() or done or Prepared()
            write_document(self.directory / _CHECKED, self._fingerprint())

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Held by a worker as long as its engine may write."""
        with _locked(self.directory / _IN_USE_LOCK, fcntl.LOCK_SH):
            yield

    def seal(self) -> None:
        """See `RecoveryKeeper`."""
        if not (self.directory / checks.ENGINE).is_dir():
            return
        with _locked(self.directory / _ENGINE_LOCK):
            # A worker that has begun meanwhile will write, and then the seal would tell of a damage that is none.
            if not self._is_in_use():
                write_document(self.directory / checks.SEAL, checks.seal_of(self.directory))

    def keep_copy(self, generation: int) -> KeptCopy | None:
        """See `RecoveryKeeper`."""
        if not self.directory.is_dir():
            return None
        with _locked(self.directory / _COPIES_LOCK):
            try:
                return copies.keep_copy(self.directory, generation)
            except StateDamaged as error:
                self.suspect(str(error))
                raise

    def suspect(self, why: str) -> None:
        """See `RecoveryKeeper`."""
        write_document(self.directory / _SUSPECT, why)

    def report(self) -> RecoveryReport:
        """See `RecoveryKeeper`."""
        running = self._is_in_use()
        state, damages = self._look(running=running)
        names = [self.directory / copies.DIRECTORY / name for name in copies.names(self.directory)]
        kept = tuple(copies.described(copy, copies.damages_of(copy)) for copy in names)
        sound = [copy.name for copy in kept if not copy.damages]
        if not kept and ORIGINS in beginnings(self.directory)[0]:
            sound = [fallback.BEGINNING]
        return RecoveryReport(
            directory=self.directory,
            running=running,
            damages=tuple(damages),
            copies=kept,
            would_use=sound[0] if sound and damages else None,
            executions=state.executions,
            workers=state.workers,
            epoch=state.epoch,
            groups=len(state.groups),
            engine_bytes=_size(self.directory / checks.ENGINE),
            state_bytes=sum(piece.length for pieces in state.groups.values() for piece in pieces),
            inputs=state.inputs,
            outputs=state.outputs,
            set_aside=tuple(fallback.set_aside(self.directory)),
        )

    def _look(self, *, running: bool) -> tuple[EngineState, list[Damage]]:
        """A running flow removes what it no longer names, which may be what was just about to be read: look again."""
        for _ in range(_LOOKS if running else 1):
            state, damages = checks.check(self.directory, thorough=True, running=running)
            if not damages:
                return state, self._behind_copy(state.epoch)
        return state, damages

    def _check(self) -> Prepared | None:
        """Go back to a copy if something is damaged; None if all is well, or nobody has written since it was."""
        suspected = (self.directory / _SUSPECT).exists()
        if not suspected and self._checked() == self._fingerprint():
            (self.directory / checks.SEAL).unlink(missing_ok=True)
            return None
        self._mend_beginnings()
        damages = self._damages(thorough=suspected)
        prepared = self._fall_back(damages) if damages else None
        for name in (_SUSPECT, checks.SEAL):
            (self.directory / name).unlink(missing_ok=True)
        return prepared

    def _damages(self, *, thorough: bool) -> list[Damage]:
        state, damages = checks.check(self.directory, thorough=thorough)
        return damages or self._behind_copy(state.epoch)

    def _behind_copy(self, epoch: int) -> list[Damage]:
        """An engine that would resume before its own newest copy has lost what came between."""
        for name in copies.names(self.directory)[:1]:
            manifest = copies.manifest_of(self.directory / copies.DIRECTORY / name)
            if manifest is not None and epoch < manifest.epoch:
                what = f"it resumes at epoch {epoch}, before its copy {name} of epoch {manifest.epoch}"
                return [Damage(file=f"{checks.ENGINE}/{engine.FILE}", what=what, lost="the epochs between")]
        return []

    def _mend_beginnings(self) -> None:
        found, damages = beginnings(self.directory)
        if damages:
            write_beginnings(self.directory, found)
            for damage in damages:
                log.warning("damaged", file=damage.file, what=damage.what, lost=damage.lost)

    def _fall_back(self, damages: list[Damage]) -> Prepared:
        if self._is_in_use():
            msg = f"{self.directory} is damaged, and a worker uses it: {_told(damages)}"
            raise Conflict(msg, hint="stop that worker; the next start goes back to the newest sound copy")
        with _locked(self.directory / _COPIES_LOCK):
            prepared = fallback.fall_back(self.directory, damages)
        if prepared is None:
            raise self._hopeless(damages)
        self._tell(prepared)
        return prepared

    def _hopeless(self, damages: list[Damage]) -> StateDamaged:
        names = ", ".join(copies.names(self.directory)) or "there is none"
        lost = "; ".join(sorted({damage.lost for damage in damages}))
        msg = f"{self.directory} is damaged and no copy is sound ({names}): {_told(damages)}. Lost: {lost}"
        hint = (
            f"put back a copy of your own; or, to have all state made again from what Kafka retains, "
            f"`mkdir {self.directory}.lost && cd {self.directory} && mv {checks.ENGINE} {checks.SEGMENTS} "
            f"{copies.DIRECTORY} {self.directory}.lost/`; or, to begin with fresh agents and accept that answers are "
            f"written again, `mv {self.directory} {self.directory}.lost`"
        )
        return StateDamaged(msg, hint=hint)

    def _tell(self, prepared: Prepared) -> None:
        for damage in prepared.damages:
            log.error("damaged", file=damage.file, what=damage.what, lost=damage.lost)
        log.warning("went back to a copy", used=prepared.used, aside=prepared.aside, directory=str(self.directory))

    def _is_in_use(self) -> bool:
        try:
            with _locked(self.directory / _IN_USE_LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
        except BlockingIOError:
            return True

    def _checked(self) -> dict[str, list[int]] | None:
        try:
            return read_document(self.directory / _CHECKED, dict[str, list[int]])
        except Unreadable:
            return None

    def _fingerprint(self) -> dict[str, list[int]]:
        """Of the files that every execution changes: as at the last check, if none has begun since."""
        found: dict[str, list[int]] = {}
        for name in (*checks.ENGINE_FILES, *FILES):
            with contextlib.suppress(FileNotFoundError):
                stat = (self.directory / name).stat()
                found[name] = [stat.st_ino, stat.st_size, stat.st_mtime_ns]
        return found


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*") if file.is_file())


def _told(damages: list[Damage]) -> str:
    return "; ".join(f"{damage.file}: {damage.what}" for damage in damages)
