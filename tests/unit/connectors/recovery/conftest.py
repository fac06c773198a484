"""What the tests of recovery directories share."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses power here, so nothing has to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
