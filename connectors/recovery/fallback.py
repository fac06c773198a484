"""The way back to a copy, in steps that the next start finishes if a crash comes between.

First the copy is copied and checked beside what it replaces; then a journal says what is to be moved where, and from
there on there is only one way to end. Damaged files are set aside, never deleted at once.
"""

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from connectors.recovery import checks, copies
from connectors.recovery.beginnings import FILES, ORIGINS, beginnings, write_beginnings
from signalbox.durable import Unreadable, read_document, sync_directory, write_document
from signalbox.ports import Damage, Prepared

ASIDE, BEGINNING = "damaged-", "beginning"
_JOURNAL, _RESTORING = "falling-back.json", "restoring"
_ASIDE_KEPT = 3
#: What a copy replaces; of the beginning there is no engine's store.
_ENTRIES = (checks.ENGINE, checks.SEGMENTS, *FILES)


class Plan(msgspec.Struct, kw_only=True):
    """The journal: what is being done, and why."""

    used: str
    aside: str
    restored: list[str]
    """What there was to put in place; it is moved there entry by entry."""
    unusable: list[str]
    """Copies that are newer than the one used, and damaged."""
    damages: list[Damage]


def fall_back(directory: Path, damages: Iterable[Damage]) -> Prepared | None:
    """Put the newest sound copy in the place of what is damaged; None if there is none.

    Without any copy yet, the beginning is one, as long as it is known where input and output began: then all state is
    made again from Kafka.
    """
    unusable: list[str] = []
    for name in copies.names(directory):
        if _restore(directory, directory / copies.DIRECTORY / name):
            return _commit(directory, name, unusable, damages)
        unusable.append(name)
    if not unusable and _restore_beginning(directory):
        return _commit(directory, BEGINNING, [], damages)
    shutil.rmtree(directory / _RESTORING, ignore_errors=True)
    return None


def finish(directory: Path) -> Prepared | None:
    """Finish what a crash has interrupted; None if there is nothing to finish."""
    try:
        plan = read_document(directory / _JOURNAL, Plan)
    except Unreadable:
        # Not decided yet, or all done: the journal is written whole, and removed last.
        shutil.rmtree(directory / _RESTORING, ignore_errors=True)
        (directory / _JOURNAL).unlink(missing_ok=True)
        return None
    aside, restoring = directory / plan.aside, directory / _RESTORING
    aside.mkdir(exist_ok=True)
    write_document(aside / "why.json", plan)
    for entry in _ENTRIES:
        if entry not in plan.restored:
            _move(directory / entry, aside / entry)
        elif (restoring / entry).exists():  # else a start that did not come to its end has done it
            _move(directory / entry, aside / entry)
            _move(restoring / entry, directory / entry)
    for name in plan.unusable:
        _move(directory / copies.DIRECTORY / name, aside / name)
    (directory / checks.SEAL).unlink(missing_ok=True)
    sync_directory(directory)
    shutil.rmtree(restoring, ignore_errors=True)
    (directory / _JOURNAL).unlink()
    sync_directory(directory)
    for old in set_aside(directory)[_ASIDE_KEPT:]:
        shutil.rmtree(directory / old, ignore_errors=True)
    return Prepared(damages=tuple(plan.damages), used=plan.used, aside=plan.aside)


def set_aside(directory: Path) -> list[str]:
    """The folders of what was found damaged, newest first."""
    return sorted((path.name for path in directory.glob(f"{ASIDE}*")), reverse=True)


def _restore(directory: Path, copy: Path) -> bool:
    """Copy a copy to a place beside what it is to replace; whether it is sound there."""
    manifest = copies.manifest_of(copy)
    if manifest is None:
        return False
    restoring = _fresh(directory)
    try:
        for name in (*manifest.files, copies.MANIFEST):
            (restoring / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(copy / name, restoring / name)  # with its mode: state is for its owner alone
    except OSError:
        return False
    return not copies.damages_of(restoring)


def _restore_beginning(directory: Path) -> bool:
    found = beginnings(directory)[0]
    if ORIGINS in found:
        write_beginnings(_fresh(directory), found)
    return ORIGINS in found


def _fresh(directory: Path) -> Path:
    restoring = directory / _RESTORING
    shutil.rmtree(restoring, ignore_errors=True)
    restoring.mkdir()
    return restoring


def _commit(directory: Path, used: str, unusable: list[str], damages: Iterable[Damage]) -> Prepared:
    copies.sync_tree(directory / _RESTORING)
    aside = f"{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    restored = [entry for entry in _ENTRIES if (directory / _RESTORING / entry).exists()]
    plan = Plan(used=used, aside=aside, restored=restored, unusable=unusable, damages=list(damages))
    write_document(directory / _JOURNAL, plan)
    done = finish(directory)
    assert done is not None, "the journal was written"
    return done


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)
