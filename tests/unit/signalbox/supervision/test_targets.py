from pathlib import Path

import pytest

from signalbox.errors import ConfigError
from signalbox.supervision.targets import Change, TargetsFile


def test_what_is_saved_is_there_for_the_next(tmp_path: Path) -> None:
    """Targets, generations, changes under way and read offsets survive as they were."""
    file = TargetsFile(tmp_path / "control.json")
    flow = file.flow("agents", 1)
    flow.workers, flow.generation, flow.pauses = 4, 12, [0.2, 0.3]
    flow.change = Change(id="c", before=1, desired=4, decision_id="d")
    file.now.pools["task_agent"] = 40
    file.now.read[3] = 17
    file.save()
    assert TargetsFile(tmp_path / "control.json").now == file.now


def test_the_settings_decide_until_a_command_does(tmp_path: Path) -> None:
    """A flow begins with what the settings say, and goes on with what was commanded until the settings change."""
    file = TargetsFile(tmp_path / "control.json")
    assert file.flow("agents", 2).workers == 2
    file.flow("agents", 2).workers = 5
    assert file.flow("agents", 2).workers == 5
    assert file.flow("agents", 3).workers == 3


def test_settings_that_change_end_a_change_that_was_under_way(tmp_path: Path) -> None:
    """What a killed supervisor had begun is not finished against what the settings say now."""
    file = TargetsFile(tmp_path / "control.json")
    file.flow("agents", 2).change = Change(id="c", before=2, desired=4)
    assert file.flow("agents", 1).change is None


@pytest.mark.parametrize("content", ["", "[]", '{"flows": 1}', '{"flows": {"agents": {"workers": "x"}}}'])
def test_a_file_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    """A damaged file is named, with the way out, instead of being taken for none."""
    path = tmp_path / "control.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"control\.json") as caught:
        TargetsFile(path)
    assert "remove it" in (caught.value.hint or "")
