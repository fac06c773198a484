"""The code of docs/how-to/write-a-sensor.md, run as it stands there."""

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from signalbox.config import Settings
from signalbox.sensors import BUILTIN_SENSORS, SampleContext
from signalbox.sensors.contract import build_sensors

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "write-a-sensor.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page's Python defines, one block after the other."""
    names: dict[str, Any] = {"__name__": "how_to"}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_pages_own_test_passes(page, tmp_path):
    """The reader's first test is green."""
    page["test_a_full_folder_is_reported"](tmp_path)


def test_the_pages_app_takes_the_pages_settings(page):
    """The sensor and the TOML fit together, beside the shipped sensors."""
    [toml] = blocks("toml")
    sensors = build_sensors(page["app"].sensors, Settings.model_validate(tomllib.loads(toml)))
    by_name = {sensor.name: sensor for sensor in sensors}
    assert by_name.keys() == {"load", "system_health", "spool"}
    assert by_name["spool"].settings.folder == Path("/var/spool/mail")
    assert by_name["spool"].settings.interval_s == 30


def test_the_pages_asynchronous_sensor_finds_an_open_port(page):
    """It connects to a real port, and raises where nobody listens."""

    async def scenario():
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sensor = page["PortSensor"](page["PortSensor"].Settings(port=port), "n1")
        context = SampleContext(sensor="port", node="n1")
        [signal] = [signal async for signal in sensor.sample(context)]
        assert (signal.type, signal.subject) == ("port.open", f"127.0.0.1:{port}")
        server.close()
        await server.wait_closed()
        with pytest.raises(OSError, match="Connect call failed"):
            await anext(aiter(sensor.sample(context)))

    asyncio.run(scenario())


def test_the_page_lists_the_shipped_sensors_and_their_settings():
    """The table names every shipped sensor and each of its settings."""
    for sensor in BUILTIN_SENSORS:
        own = sensor.Settings.model_fields.keys() - {"interval_s", "timeout_s"}
        row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{sensor.name}`"))
        assert all(f"`{key}`" in row for key in own)
