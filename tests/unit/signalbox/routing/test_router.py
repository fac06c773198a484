"""The router: which routes, in which order, at which cost. What matches at all is in test_pattern."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signalbox.errors import ConfigError
from signalbox.routing import InvalidPattern, Pattern, Route, Router
from signalbox.routing import router as router_module
from signalbox.routing.trie import Trie, advance
from tests.unit.signalbox.routing.grammar_model import doubtful_types, model_matches, patterns, types


def make_router(*routes: tuple[str, int]) -> Router[str]:
    """A router of (pattern, priority), whose targets are the patterns' own texts."""
    router: Router[str] = Router()
    for pattern, priority in routes:
        router.add(pattern, pattern, priority=priority)
    return router


def targets(router: Router[str], type: str) -> list[str]:
    return [route.target for route in router.route(type)]


def make_trie(router: Router[str]) -> Trie:
    return Trie(route.pattern for route in router.routes())


def visited_nodes(trie: Trie, type: str) -> int:
    """How many trie nodes a look-up of this type passes, the work that a miss of the memory does."""
    frontier = trie.start()
    visited = len(frontier)
    for segment in type.split("."):
        frontier = advance(frontier, segment)
        visited += len(frontier)
    return visited


@pytest.mark.parametrize(
    ("routes", "type", "expected"),
    [
        (
            [("**", -100), ("*.*.created", 0), ("user.**", 0), ("user.*.created", 0), ("user.123.created", 0)],
            "user.123.created",
            ["user.123.created", "user.*.created", "user.**", "*.*.created", "**"],
        ),
        (
            [("**.created", 0), ("user.**.created", 50), ("user.123.created", 100)],
            "user.123.created",
            ["user.123.created", "user.**.created", "**.created"],
        ),
        (
            [("user.**.created", 0), ("user.123.created", 100)],
            "user.123.created",
            ["user.123.created", "user.**.created"],
        ),
        ([("user.*", 100), ("user.created", -100)], "user.created", ["user.created", "user.*"]),
        ([("**", 1000), ("*", -1000)], "user", ["*", "**"]),
        ([("user.*", 0), ("user", 0), ("user.**", 0), ("**", 0)], "user", ["user.**", "user", "**"]),
        ([("user", 0), ("user.*", 0)], "user.created.x", []),
        ([("audit.**", 0), ("**.audit", 0)], "audit", ["audit.**", "**.audit"]),
        ([("a.**.b.**", 0)], "a.x.b.y.b.z", ["a.**.b.**"]),
        ([("**.a.**", 0)], "a.a.a.a.a", ["**.a.**"]),
        ([("*", 0)], "a.b.c", []),
    ],
)
def test_order_table(routes: list[tuple[str, int]], type: str, expected: list[str]) -> None:
    """The more specific pattern comes first whatever the priorities, no prefix matches, and each route comes once."""
    assert targets(make_router(*routes), type) == expected


def test_priority_decides_among_equally_specific_routes() -> None:
    """Of equally specific routes the higher priority comes first."""
    router = make_router(("a.**.z", -5), ("a.*.z", 0))
    router.add("a.**.z", "late but urgent", priority=1000)
    assert targets(router, "a.b.z") == ["a.*.z", "late but urgent", "a.**.z"]


def test_equal_routes_keep_the_order_of_registration() -> None:
    """Routes equal in specificity and priority come in the order in which they were added, all of them."""
    router: Router[str] = Router()
    for target in ("1", "2", "3", "4"):
        router.add("user.created", target)
    assert targets(router, "user.created") == ["1", "2", "3", "4"]


def test_the_same_registration_twice_is_two_routes() -> None:
    """Adding a pattern and target again runs the target twice; the routes differ in their index."""
    router = make_router(("user.*", 0), ("user.*", 0))
    assert [route.index for route in router.route("user.created")] == [0, 1]


@given(
    st.lists(st.tuples(patterns, st.integers(-1000, 1000) | st.just(0)), max_size=25),
    st.lists(types | doubtful_types, min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_routes_like_the_regex_model(routes: list[tuple[str, int]], asked: list[str]) -> None:
    """What comes is what the regex model lets through, sorted by specificity, priority and registration."""
    router: Router[str] = make_router(*routes)
    for type in asked:
        expected = sorted(
            (-Pattern.parse(pattern).specificity, -priority, index)
            for index, (pattern, priority) in enumerate(routes)
            if model_matches(pattern, type)
        )
        assert [route.index for route in router.route(type)] == [index for _, _, index in expected]


@given(st.data())
@settings(deadline=None)
def test_registration_order_matters_only_among_equals(draw: st.DataObject) -> None:
    """Any permutation of routes that differ in specificity or priority gives the same order of targets."""
    routes = [
        ("a.b.c", 0),
        ("a.b.c", 7),
        ("a.*.c", 0),
        ("a.**", 0),
        ("a.**", -1),
        ("**.c", 0),
        ("**", 1000),
        ("*.b.*", 3),
    ]
    permuted: Router[tuple[str, int]] = Router()
    for pattern, priority in draw.draw(st.permutations(routes)):
        permuted.add(pattern, (pattern, priority), priority=priority)
    expected = [
        ("a.b.c", 7),
        ("a.b.c", 0),
        ("a.*.c", 0),
        ("*.b.*", 3),
        ("a.**", 0),
        ("a.**", -1),
        ("**.c", 0),
        ("**", 1000),
    ]
    assert [route.target for route in permuted.route("a.b.c")] == expected


@pytest.mark.parametrize("priority", [-1001, 1001, 10**9])
def test_priority_out_of_range_is_refused(priority: int) -> None:
    """A priority beyond 1000 is an error that names the range, and nothing is registered."""
    router: Router[str] = Router()
    with pytest.raises(ConfigError, match=str(priority)) as caught:
        router.add("user", "target", priority=priority)
    assert "-1000 and 1000" in (caught.value.hint or "")
    assert router.routes() == []


@pytest.mark.parametrize("priority", [-1000, 1000])
def test_priority_bounds_are_allowed(priority: int) -> None:
    """The range of priorities includes both ends."""
    assert make_router(("user", priority)).routes()[0].priority == priority


@pytest.mark.parametrize("pattern", ["user..created", "user.**.**.created", "invalid**path", "invalid@#path"])
def test_invalid_pattern_is_refused(pattern: str) -> None:
    """A route with an invalid pattern is refused, and nothing is registered."""
    router: Router[str] = Router()
    with pytest.raises(InvalidPattern):
        router.add(pattern, "target")
    assert router.routes() == []


@pytest.mark.parametrize("type", ["", ".".join("a" * 101), "user@123", "user..created", "user.*", "**"])
def test_invalid_type_has_no_routes(type: str) -> None:
    """A type that is not valid has no routes, not even those of `**`, and is no error."""
    assert make_router(("**", 0), ("user.**", 0)).route(type) == ()


def test_a_route_says_how_it_was_registered() -> None:
    """A route carries its parsed pattern, target, priority and index."""
    router: Router[str] = Router()
    pattern = Pattern.parse("user.*")
    router.add("user.created", "first")
    router.add(pattern, "second", priority=3)
    assert router.route("user.x") == (Route(pattern=pattern, target="second", priority=3, index=1),)


def test_routes_lists_all_in_order() -> None:
    """`routes` gives every route in the order in which they are tried, as a list of the caller's own."""
    router = make_router(("**", 5), ("user", 0), ("user.created", 0))
    router.routes().clear()
    assert [route.target for route in router.routes()] == ["user.created", "user", "**"]


def test_remove_takes_exactly_this_pattern() -> None:
    """Removing `user` leaves `user.created` and `user.*` where they are."""
    router = make_router(("user", 0), ("user.created", 0), ("user.*", 0), ("user.**", 0))
    router.remove("user")
    assert targets(router, "user") == ["user.**"]
    assert targets(router, "user.created") == ["user.created", "user.*", "user.**"]


def test_remove_can_name_the_target() -> None:
    """With a target, only its routes go; without, all of the pattern's."""
    router: Router[str] = Router()
    for target in ("a", "b", "a"):
        router.add(Pattern.parse("user"), target)
    router.remove("user", "a")
    assert targets(router, "user") == ["b"]
    router.add("user", "c")
    router.remove(Pattern.parse("user"))
    assert targets(router, "user") == []
    assert not router.has_route("user")


@pytest.mark.parametrize(
    ("pattern", "target"), [("order", None), ("user.*", None), ("us..er", None), ("user", "other")]
)
def test_removing_the_unknown_changes_nothing(pattern: str, target: str | None) -> None:
    """A pattern or target that is not registered is no error and removes nothing."""
    router = make_router(("user", 0))
    router.remove(pattern, target)
    assert targets(router, "user") == ["user"]


def test_indexes_are_not_used_again() -> None:
    """A route added after a removal comes after the older ones of equal rank."""
    router: Router[str] = Router()
    for target in ("a", "b"):
        router.add("user", target)
    router.remove("user", "a")
    router.add("user", "c")
    assert [(route.target, route.index) for route in router.route("user")] == [("b", 1), ("c", 2)]


def test_has_route_asks_for_the_pattern_itself() -> None:
    """`has_route` is about the registered text and not about what it matches."""
    router = make_router(("user.*", 0))
    assert router.has_route("user.*")
    assert router.has_route(Pattern.parse("user.*"))
    assert not router.has_route("user.created")
    assert not router.has_route("user")


class MemoCoherence(RuleBasedStateMachine):
    """Adds, removals and questions in any order: the answer is always that of a router made afresh."""

    PATTERNS = ("a", "a.b", "a.*", "*.b", "**", "a.**", "**.b", "*", "a.**.b")
    TYPES = ("a", "b", "a.b", "a.c", "a.b.b", "", "a..b")

    def __init__(self) -> None:
        super().__init__()
        self.router: Router[int] = Router()
        self.model: list[tuple[str, int, int, int]] = []
        self.registered = 0

    @rule(pattern=st.sampled_from(PATTERNS), to=st.integers(0, 2), priority=st.integers(-1, 1))
    def add(self, pattern: str, to: int, priority: int) -> None:
        self.router.add(pattern, to, priority=priority)
        self.model.append((pattern, to, priority, self.registered))
        self.registered += 1

    @precondition(lambda self: self.model)
    @rule(pattern=st.sampled_from(PATTERNS), to=st.none() | st.integers(0, 2))
    def remove(self, pattern: str, to: int | None) -> None:
        self.router.remove(pattern, to)
        self.model = [row for row in self.model if row[0] != pattern or to not in (None, row[1])]

    @invariant()
    def answers_like_the_model(self) -> None:
        for type in self.TYPES:
            expected = sorted(
                (-Pattern.parse(pattern).specificity, -priority, index)
                for pattern, _, priority, index in self.model
                if model_matches(pattern, type)
            )
            assert [route.index for route in self.router.route(type)] == [row[2] for row in expected]
        assert all(self.router.has_route(p) is (p in {row[0] for row in self.model}) for p in self.PATTERNS)


TestMemoCoherence = MemoCoherence.TestCase
TestMemoCoherence.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


def test_a_type_is_looked_up_once() -> None:
    """The second question for a type gives back the very answer of the first."""
    router = make_router(("user.*", 0), ("**", 0))
    assert router.route("user.created") is router.route("user.created")


def test_ten_thousand_routes_cost_what_ten_do() -> None:
    """A look-up passes as many trie nodes with 10,000 routes as with 10, and finds the same targets."""
    ten = [
        ("room.temperature", 0),
        ("room.*", 0),
        ("room.**", 0),
        ("**", 0),
        ("**.temperature", 0),
        ("*.temperature", 0),
        ("*.**.metrics", 0),
        ("alert.*.critical", 0),
        ("a.**.z", 0),
        ("system.health.critical", 0),
    ]
    shapes = ("svc{}.event", "room.sensor{}", "room.{}.**", "*.kind{}", "**.kind{}.x", "room.*.kind{}", "alert.*.{}")
    many = [*ten, *((shapes[number % len(shapes)].format(number), 0) for number in range(10_000 - len(ten)))]
    few_routes, many_routes = make_router(*ten), make_router(*many)
    few_nodes, many_nodes = make_trie(few_routes), make_trie(many_routes)
    for type in ("room.temperature", "room.kitchen.oven.temperature", "system.health.critical", "unknown.type"):
        assert targets(few_routes, type) == targets(many_routes, type)
        # The further routes add a wildcard branch beside some nodes; there are 10,000 routes and not 10,000 branches.
        assert visited_nodes(many_nodes, type) <= visited_nodes(few_nodes, type) + 3
    assert max(visited_nodes(many_nodes, f"room.kind{number}.x") for number in range(1000)) < 20


def test_wildcards_in_a_row_do_not_multiply_the_work() -> None:
    """A look-up passes each trie node at most once per segment, also where a pattern fits in many ways."""
    router = make_router((".".join(["**", "a"] * 50), 0))
    type = ".".join("a" * 100)
    assert visited_nodes(make_trie(router), type) <= 101 * 101
    assert len(router.route(type)) == 1


def test_random_types_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded in types, in routes they lead to and in length, and answers stay right."""
    monkeypatch.setattr(router_module, "REMEMBERED_TYPES", 50)
    monkeypatch.setattr(router_module, "REMEMBERED_ROUTES", 60)
    router = make_router(("user.**", 0), ("user.*", 0), ("long.**", 0))
    largest = 0
    for number in range(500):
        assert len(router.route(f"other.n{number}")) == 0
        largest = max(largest, len(router._memo))
    assert largest == 50
    largest = 0
    for number in range(500):
        if number == 250:
            largest = 0  # it has overflowed by now, and must fill again
        assert len(router.route(f"user.n{number}")) == 2
        largest = max(largest, sum(map(len, router._memo.values())))
    assert 55 <= largest <= 61
    remembered = len(router._memo)
    assert len(router.route("long." + "x" * 300)) == 1
    assert router.route("inv..alid") == ()
    assert len(router._memo) == remembered


def test_the_memory_has_sane_bounds() -> None:
    """The bounds in use hold for systems with thousands of types and stay within some tens of megabytes."""
    assert 10_000 <= router_module.REMEMBERED_TYPES <= 100_000
    assert router_module.REMEMBERED_TYPES * router_module.REMEMBERED_TYPE_LENGTH <= 32_000_000
    assert router_module.REMEMBERED_ROUTES * 8 <= 8_000_000
