"""The view of the registry: what records do to it, how it is bounded, and whether it answers as a plain list would."""

import random
import threading
import time
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import encode, new_signal
from signalbox.clock import VirtualClock
from signalbox.ports import Record
from signalbox.registry import view as module
from signalbox.registry.query import Query
from signalbox.registry.view import MAX_RECORD_BYTES, RegistryView
from tests.support.registry import Registry, heartbeat, node_stopped, registered, stopped
from tests.unit.signalbox.registry.queries import CAPABILITIES, KINDS, NODES, TYPES, agents, means, queries

IDS = [f"x:{number}" for number in range(8)]
events = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from(IDS), agents),
        st.tuples(st.just("stop"), st.sampled_from(IDS)),
        st.tuples(st.just("beat"), st.sampled_from(NODES)),
        st.tuples(st.just("end"), st.sampled_from(NODES)),
        st.tuples(st.just("forget"), st.sampled_from(IDS)),
        st.tuples(st.just("advance"), st.floats(0, 15)),
    ),
    max_size=40,
)


def happen(registry: Registry, event: tuple[Any, ...]) -> None:
    match event:
        case ("register", id, fields):
            registry.register(id, **fields)
        case ("forget", id):
            registry.put(None, key=id)
        case (name, value):
            getattr(registry, name)(value)


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.view.complete = True
    return made


@given(events, queries, st.sampled_from(("", "x:", "x:1", "y")), st.integers(1, 10))
def test_a_query_finds_what_a_plain_filter_finds(past, plain, prefix, limit):
    """Whatever happened, an indexed query gives the rows that reading all of them one by one would give, by id."""
    registry = Registry()
    registry.view.complete = True
    for event in past:
        happen(registry, event)
    rows = registry.view.find(limit=100)
    meant = (row for row in rows if row["agent_id"].startswith(prefix) and means(plain, row))
    assert registry.view.find(Query.of(plain), prefix=prefix, limit=limit) == list(islice(meant, limit))


@pytest.mark.parametrize(
    "text",
    [
        "type=room",
        "type in (room, nothing)",
        "type=nothing",
        "type=room or node=a",
        "type=room or metadata.load=1",
        "metadata.load=1 or type=room",
        "type=room and (node=a or status=paused)",
        "node=a and metadata.load=1 and kind=pool",
        "not type=room",
        "not (type=room or node=a)",
        "type!=room and node=a",
        "capability=heating and capability=tracking",
        "capability in (heating, tracking) and not kind=keyed",
        "(type=room or type=parcel) and (node=a or node=b)",
        "(type=room and node=a) or (kind=pool and status=running)",
    ],
)
def test_an_index_leaves_nobody_out(registry, text):
    """Whatever part of a query the index answers, the rest is asked of exactly those that are left."""
    made = random.Random(7)
    for node in NODES[:2]:
        registry.beat(node)
    for number in range(200):
        registry.register(
            f"x:{number:03}",
            agent_type=made.choice(TYPES),
            kind=made.choice(KINDS),
            node=made.choice(NODES),
            status=made.choice(("running", "paused")),
            capabilities=made.sample(CAPABILITIES, made.randrange(3)),
            metadata={"load": made.randrange(3)},
        )
    query = Query.parse(text)
    expected = [row for row in registry.view.find(limit=1000) if means(query.plain(), row)]
    assert registry.view.find(query, limit=1000) == expected
    assert bool(expected) == (text != "type=nothing")


@given(events)
def test_the_last_record_of_an_agent_counts(past):
    """The view holds the agents whose last record registers them, as that record says."""
    registry = Registry()
    last: dict[str, Any] = {}
    for event in past:
        happen(registry, event)
        match event:
            case ("register", id, fields):
                last[id] = fields
            case ("stop" | "forget", id):
                last.pop(id, None)
    assert registry.ids() == sorted(last)
    assert len(registry.view._index) == len({key for one in registry.view._cohorts for key in one.index_keys()})
    for row in registry.view.find(limit=100):
        told = last[row["agent_id"]]
        assert (row["type"], row["kind"], row["node"]) == (told["agent_type"], told["kind"], told["node"])
        assert (row["capabilities"], row["metadata"]) == (told["capabilities"], told["metadata"])


@given(events, st.data())
def test_records_read_again_change_nothing(past, data):
    """A record that was applied before may come again, at any time, without any effect."""
    registry = Registry()
    for event in past:
        happen(registry, event)
        if registry.records:
            before = registry.view.find(limit=100), registry.view.nodes(), dict(registry.view.dropped)
            again = data.draw(st.sampled_from(registry.records))
            assert registry.view.has_read(again)
            assert registry.view.apply(again) is None
            assert (registry.view.find(limit=100), registry.view.nodes(), dict(registry.view.dropped)) == before


@given(events)
def test_a_compacted_topic_makes_the_same_view(past):
    """Only the last record of each key is needed, so what compaction leaves tells the same."""
    registry = Registry()
    for event in past:
        happen(registry, event)
    last = {record.key: record for record in registry.records}
    rebuilt = RegistryView(size=1000, ttl_s=20.0, clock=registry.clock)
    for record in sorted(last.values(), key=lambda record: record.offset):
        rebuilt.apply(record)
    ids = [row["agent_id"] for row in rebuilt.find(limit=100)]
    assert ids == registry.ids()
    assert [row["node"] for row in rebuilt.nodes()] == [row["node"] for row in registry.view.nodes()]


def test_a_row_tells_all_there_is(registry):
    """An agent is shown with what it registered, its age and how long its node has been silent."""
    registry.beat("n")
    registry.register("room:1", agent_type="room", capabilities=["heating"], metadata={"floor": 2}, version="1.2")
    registry.advance(3)
    assert registry.view.find(limit=1) == [
        {
            "agent_id": "room:1",
            "type": "room",
            "kind": "keyed",
            "status": "running",
            "node": "n",
            "capabilities": ["heating"],
            "metadata": {"floor": 2},
            "version": "1.2",
            "started_at": VirtualClock().now(),
            "age_s": 3.0,
            "seen_s": 3.0,
        }
    ]
    assert registry.view.describe(["room:1", "room:2"]).keys() == {"room:1"}


def test_agents_of_a_silent_node_are_stale_and_stay(registry):
    """After ttl_s of silence they are shown as stale, with how long it lasts, and on a heartbeat as before."""
    registry.beat("n")
    registry.register("a")
    registry.register("b", status="paused")
    registry.advance(20)
    assert (registry.status("a"), registry.status("b")) == ("running", "paused")
    registry.advance(0.1)
    assert (registry.status("a"), registry.status("b")) == ("stale", "stale")
    assert registry.view.describe(["a"])["a"]["seen_s"] == 20.1
    assert registry.view.counts() == {("n", "stale"): 2}
    registry.beat("n")
    assert (registry.status("a"), registry.status("b")) == ("running", "paused")


def test_agents_of_a_node_that_was_never_heard_are_stale(registry):
    """A registration alone is no sign of life."""
    registry.register("a", node="m")
    assert (registry.status("a"), registry.view.describe(["a"])["a"]["seen_s"]) == ("stale", None)


def test_a_node_with_rare_heartbeats_has_the_time_of_two(registry):
    """A node says how soon its next heartbeat comes, and is not stale before the second one fails to come."""
    registry.beat("n", interval_s=60)
    registry.register("a")
    registry.advance(119)
    assert registry.status("a") == "running"
    registry.advance(2)
    assert registry.status("a") == "stale"


def test_agents_of_a_stopped_node_are_stale_at_once(registry):
    """A node that says it has stopped need not be waited for; when it lives again, so do they."""
    registry.beat("n")
    registry.register("a")
    registry.end("n")
    assert registry.status("a") == "stale"
    [node] = registry.view.nodes()
    assert (node["status"], node["workers"]) == ("stopped", 1)
    registry.beat("n")
    assert registry.status("a") == "running"
    assert [node["status"] for node in registry.view.nodes()] == ["running"]


def test_old_heartbeats_are_as_old_as_they_say():
    """What lay on the topic before is judged by its own time, so a node that died long ago does not seem to live."""
    registry = Registry()
    registry.beat("dead", age_s=3600)
    registry.beat("live", age_s=4)
    registry.beat("ahead", age_s=-1000)
    assert {row["node"]: (row["status"], row["seen_s"]) for row in registry.view.nodes()} == {
        "dead": ("stale", 3600.0),
        "live": ("running", 4.0),
        "ahead": ("running", 0.0),
    }


def test_new_heartbeats_count_from_their_arrival(registry):
    """Once the view is complete, a node whose clock is wrong is as alive as its heartbeats come."""
    registry.beat("late", age_s=3600)
    assert registry.view.nodes()[0]["status"] == "running"


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        encode(registered("a", metadata={"x": "x" * MAX_RECORD_BYTES})),
        encode(new_signal("agent.registered", {"agent_id": "a"}, source="s", subject="a")),
        encode(new_signal("agent.stopped", None, source="s", subject="a")),
        encode(new_signal("node.heartbeat", {"node": "n"}, source="s", subject="node/n")),
        encode(new_signal("something.else", {}, source="s", subject="a")),
    ],
)
def test_invalid_records_are_counted_and_ignored(registry, value):
    """Anybody may write to the topic; what makes no sense changes nothing but the count."""
    registry.register("a")
    record = Record(topic="registry", partition=0, offset=1, key=b"a", value=value)
    assert registry.view.apply(record) == "invalid"
    assert (registry.ids(), dict(registry.view.dropped)) == (["a"], {"invalid": 1})


@pytest.mark.parametrize("make", [registered, stopped, heartbeat, node_stopped])
def test_a_record_speaks_for_its_own_key_only(registry, make):
    """A record under another key than its agent's or node's would outlive it on the topic, and is invalid."""
    signal = make("a")
    signal.subject = "b"
    assert registry.put(signal) == "invalid"
    assert (registry.ids(), registry.view.nodes()) == ([], [])


def test_a_node_and_an_agent_may_share_a_name(registry):
    """Their keys differ, so neither's records stand for the other's."""
    registry.beat("main")
    registry.register("main", kind="singleton", node="main")
    registry.put(None, key="main")
    assert (registry.ids(), len(registry.view.nodes())) == ([], 1)
    registry.put(None, key="node/main")
    assert registry.view.nodes() == []


def test_the_number_of_agents_is_bounded():
    """Beyond the size, agents are counted and not kept; an agent that is kept can still change, or make room."""
    registry = Registry(size=2)
    assert [registry.register(id) for id in ("a", "b", "c")] == [None, None, "full"]
    assert registry.register("a", agent_type="other") is None
    assert (registry.ids(), registry.view.fill_ratio) == (["a", "b"], 1.0)
    registry.stop("b")
    assert registry.view.fill_ratio == 0.5
    assert registry.register("c") is None
    assert (registry.ids(), dict(registry.view.dropped)) == (["a", "c"], {"full": 1})


def test_pools_and_singletons_have_precedence():
    """One of them takes the place of a keyed agent, which is counted; when there is none, it is counted itself."""
    registry = Registry(size=2)
    registry.register("k:1")
    registry.register("k:2")
    assert registry.register("main", kind="singleton") is None
    assert registry.register("pool_1", kind="pool") is None
    assert (registry.ids(), dict(registry.view.dropped)) == (["main", "pool_1"], {"full": 2})
    assert registry.register("pool_2", kind="pool") == "full"
    assert registry.register("k:3") == "full"
    assert (registry.ids(), dict(registry.view.dropped)) == (["main", "pool_1"], {"full": 4})


def test_the_number_of_nodes_is_bounded(registry, monkeypatch):
    """Names of nodes come from outside too; those that are kept are still heard."""
    monkeypatch.setattr(module, "MAX_NODES", 2)
    assert [registry.beat(node) for node in ("a", "b", "c", "a")] == [None, None, "full", None]
    assert [row["node"] for row in registry.view.nodes()] == ["a", "b"]


def test_a_view_tells_how_old_it_is(registry):
    """Its age is unknown until it is complete, and then the time since the last record."""
    fresh = Registry()
    fresh.beat("n")
    assert fresh.view.summary() == {"agents": 0, "nodes": 1, "age_s": None}
    registry.beat("n")
    registry.register("a")
    registry.advance(7)
    assert registry.view.summary() == {"agents": 1, "nodes": 1, "age_s": 7.0}


def test_a_view_may_be_asked_while_it_changes(registry):
    """Queries of one thread find a whole view while another applies records."""
    registry.beat("n")
    ended = threading.Event()

    def change() -> None:
        for number in range(2000):
            registry.register(f"a:{number % 50}", capabilities=[f"c{number % 7}"], metadata={"number": number})
            registry.stop(f"a:{(number + 25) % 50}")
        ended.set()

    thread = threading.Thread(target=change)
    thread.start()
    while not ended.is_set():
        assert all(row["capabilities"] == ["c1"] for row in registry.view.find(Query.parse("capability=c1"), limit=50))
        assert sum(registry.view.counts().values()) <= 50
    thread.join()


def populated(size: int, *, unique: bool) -> Registry:
    """So many agents of ten classes on ten nodes; with `unique` no two have the same metadata."""
    made, registry = random.Random(1), Registry(size=size)
    registry.view.complete = True
    for number in range(size):
        kind = number % 10
        registry.register(
            f"t{kind}:{number}",
            agent_type=f"t{kind}",
            node=f"n{made.randrange(10)}",
            capabilities=[f"c{kind}", f"c{kind + 1}"],
            metadata={"load": made.random()} if unique else {"load": 0.4},
        )
    return registry


def least_s(registry: Registry, text: str) -> float:
    """The least time that a query takes, since others work on this machine too."""
    spans, query = [], Query.parse(text)
    for _ in range(20):
        began = time.perf_counter()
        registry.view.find(query, limit=100)
        spans.append(time.perf_counter() - began)
    return min(spans)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["type=t3 and node=n4", "capability=c3 and node=n4", "capability=c3 and node=n4 and metadata.load<0.5"]
)
def test_indexed_queries_over_many_agents_are_fast(text):
    """Among 100,000 agents of some classes, a thousand or two are found by indexed fields within 5 ms."""
    assert least_s(populated(100_000, unique=False), text) < 0.005


def test_an_index_spares_looking_at_every_agent():
    """Also if no two agents are alike, a query by indexed fields takes a fraction of one that has to look at all."""
    registry = populated(10_000, unique=True)
    assert least_s(registry, "type=t3 and node=n4 and metadata.load<0.5") * 5 < least_s(registry, "metadata.load<0.5")
