from typing import Any

import pytest
from starlette.testclient import TestClient

from signalbox.dashboard.api import build_api
from signalbox.errors import NotFound, Unreachable
from signalbox.registry.query import Query
from signalbox.telemetry.metrics import HTTP_REQUESTS


class _View:
    """A node whose answers a test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.is_ready = True
        self.error: Exception | None = None
        self.asked: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"node": "n"}

    def problems(self) -> list[str]:
        return self.reasons

    def ready(self) -> bool:
        return self.is_ready

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"signalbox_ready 1\n", f"text/plain; asked={accept}"

    async def agents(self, *, where: Query, prefix: str, limit: int) -> dict[str, Any]:
        self.asked = {"where": where.plain(), "prefix": prefix, "limit": limit}
        if self.error:
            raise self.error
        return {"agents": [{"agent_id": "a"}]}

    async def agent(self, agent_id: str) -> dict[str, Any]:
        self.asked = {"id": agent_id}
        if self.error:
            raise self.error
        return {"agent_id": agent_id}


@pytest.fixture
def view() -> _View:
    return _View()


@pytest.fixture
def client(view: _View) -> TestClient:
    app = build_api(view, hosts=("127.0.0.1", "localhost", "::1"))
    return TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)


def test_health_gives_reasons(client: TestClient, view: _View) -> None:
    """A healthy node answers 200; one with problems answers 503 and names them."""
    assert client.get("/health").json() == {"status": "ok", "reasons": []}
    view.reasons = ["agents is restarting"]
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "failing", "reasons": ["agents is restarting"]}


def test_a_process_that_answers_is_alive_whatever_its_health(client: TestClient, view: _View) -> None:
    """Liveness does not depend on anything but the server itself."""
    view.reasons, view.is_ready = ["broken"], False
    assert client.get("/livez").status_code == 200


def test_readiness_follows_the_node(client: TestClient, view: _View) -> None:
    """Ready is 200, not ready is 503."""
    assert client.get("/readyz").status_code == 200
    view.is_ready = False
    assert client.get("/readyz").status_code == 503


def test_metrics_pass_on_what_is_accepted(client: TestClient) -> None:
    """The scraper's Accept header chooses the format."""
    answer = client.get("/metrics", headers={"accept": "x/y"})
    assert answer.text == "signalbox_ready 1\n"
    assert answer.headers["content-type"] == "text/plain; asked=x/y"


def test_status_is_json_that_no_cache_keeps(client: TestClient) -> None:
    """The API answers JSON, fresh each time."""
    answer = client.get("/api/v1/status")
    assert answer.json() == {"node": "n"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_agents_are_asked_for_by_prefix_and_limit(client: TestClient, view: _View) -> None:
    """The query reaches the workers, with a bound where none is given."""
    assert client.get("/api/v1/agents?prefix=task&limit=7").json() == {"agents": [{"agent_id": "a"}]}
    assert view.asked == {"where": {"all": []}, "prefix": "task", "limit": 7}
    client.get("/api/v1/agents")
    assert view.asked == {"where": {"all": []}, "prefix": "", "limit": 100}


@pytest.mark.parametrize("where", ["node!=a", '{"field": "node", "op": "ne", "value": "a"}'])
def test_agents_are_asked_for_by_a_query(client: TestClient, view: _View, where: str) -> None:
    """`where` is a query as people write it, or the same as JSON."""
    assert client.get("/api/v1/agents", params={"where": where}).status_code == 200
    assert view.asked["where"] == {"field": "node", "op": "ne", "value": "a"}


@pytest.mark.parametrize("where", ["", "node=", "{", '{"all": [' * 40, "node=a or " * 1000, "nose=a"])
def test_a_bad_query_is_refused(client: TestClient, view: _View, where: str) -> None:
    """What cannot be read is the caller's mistake, and reaches nobody."""
    answer = client.get("/api/v1/agents", params={"where": where})
    assert (answer.status_code, view.asked) == (400, {})
    assert answer.json()["error"].startswith(("the query", "the comparison"))


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "", "1e3", "²"])
def test_a_bad_limit_is_refused(client: TestClient, limit: str) -> None:
    """What is not a number in range is the caller's mistake."""
    answer = client.get("/api/v1/agents", params={"limit": limit})
    assert answer.status_code == 400
    assert "limit has to be a number from 1 to 10000" in answer.json()["error"]


def test_an_agent_id_may_hold_any_character(client: TestClient, view: _View) -> None:
    """Subjects with slashes and spaces name agents too."""
    client.get("/api/v1/agents/room%2F12%20b")
    assert view.asked == {"id": "room/12 b"}


def test_errors_are_json_with_the_status_that_fits(client: TestClient, view: _View) -> None:
    """Not found is 404, a silent worker 503, and both keep message and hint."""
    view.error = NotFound("there is no agent 'a'", hint="look")
    answer = client.get("/api/v1/agents/a")
    assert answer.status_code == 404
    assert answer.json() == {"error": "there is no agent 'a'", "hint": "look"}
    view.error = Unreachable("agents-0 does not answer")
    assert client.get("/api/v1/agents").status_code == 503


def test_a_bug_is_500_and_shows_no_inside(client: TestClient, view: _View) -> None:
    """An unexpected exception is logged, and its text stays inside."""
    view.error = RuntimeError("password=hunter2")
    answer = client.get("/api/v1/status")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert answer.json()["error"] == "the request failed inside the node"


def test_an_unknown_path_and_a_write_are_json_errors(client: TestClient) -> None:
    """Also what the framework refuses is told in JSON."""
    assert client.get("/nope").json() == {"error": "Not Found", "hint": None}
    answer = client.post("/api/v1/status")
    assert answer.status_code == 405
    assert answer.json()["error"] == "Method Not Allowed"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "a:b:c"])
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    """A page that makes its own name point here gets nothing."""
    answer = client.get("/api/v1/status", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json()["error"].startswith("this server is not")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "LOCALHOST:8080", "[::1]:8080"])
def test_the_servers_own_names_are_accepted(client: TestClient, host: str) -> None:
    """Every name of the loopback works, with any port."""
    assert client.get("/livez", headers={"host": host}).status_code == 200


def test_any_name_is_accepted_where_the_server_is_open(view: _View) -> None:
    """A server opened to the network is called by names it cannot know."""
    client = TestClient(build_api(view, hosts=("*",)), base_url="http://signalbox.internal")
    assert client.get("/livez").status_code == 200


def test_requests_are_counted_by_route_and_code(client: TestClient, view: _View) -> None:
    """The label is the route, not the path, so that labels stay few; failures inside are counted too."""

    def count(route: str, code: int) -> float:
        return float(HTTP_REQUESTS.labels(route=route, code=code)._value.get())

    route = "/api/v1/agents/{agent_id:path}"
    before = [count(route, 200), count("other", 404), count("/api/v1/status", 500)]
    client.get("/api/v1/agents/x")
    client.get("/api/v1/agents/y")
    client.get("/nope")
    view.error = RuntimeError("x")
    client.get("/api/v1/status")
    after = [count(route, 200), count("other", 404), count("/api/v1/status", 500)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]
