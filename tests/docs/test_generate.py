"""The generated references are up to date, and a page that is not is noticed."""

from docs import generate
from signalbox.config import Settings


def test_the_references_are_up_to_date():
    """What lies in docs/reference is what the code says."""
    assert generate.main(["--check"]) == 0


def test_a_stale_page_is_noticed_and_mended(tmp_path, capsys):
    """`--check` names a page that differs and writes nothing; without it the page is written."""
    assert generate.main([], directory=tmp_path) == 0
    page = tmp_path / "settings.md"
    page.write_text("old")
    assert generate.main(["--check"], directory=tmp_path) == 1
    assert (page.read_text(), "settings.md" in capsys.readouterr().err) == ("old", True)
    assert generate.main([], directory=tmp_path) == 0
    assert generate.main(["--check"], directory=tmp_path) == 0


def test_every_setting_is_explained():
    """No setting is without a line, and no line without an explanation."""
    rows = [line.split(" | ") for line in generate.settings_page().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if not row[-1].removesuffix(" |").strip()] == []
    assert all(f"## {group}" in generate.settings_page() for group in Settings.model_fields if group != "profile")
