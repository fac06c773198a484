"""Outcomes of actions: they reach the agent that asked, once, whenever and however often they are read."""

from typing import Any

from schemas.payloads.actions import ActionCompleted
from schemas.signal import Signal, decode
from signalbox.agents import Agent, AgentState, Directive, Emit, Pool, RunAction, on
from signalbox.agents.group import OUTCOME
from signalbox.app import App
from signalbox.clock import VirtualClock
from tests.unit.signalbox.agents.examples import Groups, group_of, make_signal


class Buyer(Agent):
    """Asks for one payment per order."""

    class State(AgentState):
        paid: list[Any] = []  # noqa: RUF012

    @on("order.placed")
    def placed(self, state: State, signal: Signal[Any]) -> Directive:
        return RunAction("pay", {"amount": signal.data}, context={"order": signal.id})

    @on("action.completed")
    def completed(self, state: State, signal: Signal[ActionCompleted]) -> Directive:
        state.paid.append(signal.data.result)
        return Emit("alert.paid", signal.data.context)


GROUP = group_of("buyer:s")


class Shop:
    """The group of one buyer."""

    def __init__(self) -> None:
        self.groups = Groups(App(agents=[Buyer], builtins=False), VirtualClock())
        self.group = self.groups.group(GROUP)

    def order(self, id: str) -> None:
        self.groups.deliver([(1, make_signal("order.placed", 5, id=id))])

    def outcome(self, instruction: str, *, to: str = "buyer:s") -> None:
        data = {"instruction_id": instruction, "agent_id": to, "action": "pay", "result": 7, "context": {"order": "o"}}
        signal = make_signal("action.completed", data | {"duration_ms": 1.0, "attempts": 1}, id=f"of-{instruction}")
        self.group.deliver(("effects", 0), [(OUTCOME, [(to, signal, 3)])])
        self.groups.collect()

    def restarted(self) -> "Shop":
        again = Shop()
        again.groups.restore({GROUP: self.group.take_changes()})
        return again

    def told(self) -> list[str]:
        return [out.type for out in self.groups.outgoing]

    def paid(self) -> list[Any]:
        state, *_ = self.groups.states()["buyer:s"]
        return list(state.paid)


def _instruction(shop: Shop) -> str:
    (request,) = [out for out in shop.groups.outgoing if out.topic == "effects"]
    signal = decode(request.value)
    assert signal.data == {
        "agent_id": "buyer:s",
        "action": "pay",
        "params": {"amount": 5},
        "context": {"order": "o1"},
        "deadline": None,
        "priority": 0,
        "name": None,
    }
    assert (signal.type, signal.subject) == ("action.requested", "s")
    return request.id


def _asked() -> tuple[Shop, str]:
    shop = Shop()
    shop.order("o1")
    return shop, _instruction(shop)


def test_an_outcome_reaches_its_agent_once() -> None:
    """The handler gets the outcome with its context; the same outcome read again is nothing new."""
    shop, instruction = _asked()
    shop.outcome(instruction)
    shop.outcome(instruction)
    assert shop.paid() == [7]
    assert shop.told() == ["action.requested", "alert.paid"]


def test_an_outcome_is_awaited_over_a_restart() -> None:
    """What an agent has asked for is part of its saved state."""
    shop, instruction = _asked()
    again = shop.restarted()
    again.outcome(instruction)
    assert again.paid() == [7]
    once_more = again.restarted()
    once_more.outcome(instruction)
    assert once_more.paid() == [7]


def test_an_outcome_that_comes_before_its_request_is_repeated_waits_for_it() -> None:
    """After a crash an outcome may be read before the signal that asked for it, and even another crash between."""
    _, instruction = _asked()
    fresh = Shop()
    fresh.outcome(instruction)
    assert fresh.told() == []
    again = fresh.restarted()
    again.order("o1")
    assert again.paid() == [7]
    assert again.told() == ["action.requested", "alert.paid"]
    assert again.restarted().paid() == [7]


def test_outcomes_that_nobody_asks_for_are_forgotten_in_the_end() -> None:
    """When everything that may repeat has been repeated, an outcome that no agent waits for is dropped."""
    _, instruction = _asked()
    fresh = Shop()
    fresh.outcome(instruction)
    fresh.group.take_changes()
    fresh.group.caught_up()
    again = fresh.restarted()
    again.group.caught_up()
    again.order("o1")
    assert again.paid() == []
    fresh.outcome("another")
    assert fresh.group.take_changes() == []


def test_an_outcome_does_not_bring_an_agent_back() -> None:
    """The outcome for an agent that has ended meanwhile is nobody's."""
    shop, instruction = _asked()
    shop.group.caught_up()
    shop.outcome(instruction, to="buyer:gone")
    shop.outcome(instruction, to="nobody:s")
    assert list(shop.group) == ["buyer:s"]


class Payer(Buyer):
    """The same work by a pool."""

    addressing = Pool(size=2, max=2)


def test_a_member_that_its_pool_no_longer_has_ends_with_its_last_outcome() -> None:
    """A surplus member waits for the actions that it asked for, over a restart too, handles their outcomes and ends."""
    groups = Groups(App(agents=[Payer], builtins=False), VirtualClock())
    group = groups.group(group_of("payer_2"))
    group.resized("signals-0", {"payer": 2})
    group.start()
    group.caught_up()
    groups.deliver([(1, make_signal("order.placed", 5, subject="payer_2", id="o1"))])
    (instruction,) = [out.id for out in groups.outgoing if out.topic == "effects"]
    group.resized("signals-0", {"payer": 1})
    assert list(group) == ["payer_2"]
    again = Groups(App(agents=[Payer], builtins=False), VirtualClock())
    again.restore({group.key: group.take_changes()})
    group = again.group(group.key)
    group.start()
    group.resized("signals-0", {"payer": 1})
    group.caught_up()
    assert list(group) == ["payer_2"]
    data = {"instruction_id": instruction, "agent_id": "payer_2", "action": "pay", "result": 7, "context": {}}
    outcome = make_signal("action.completed", data | {"duration_ms": 1.0, "attempts": 1}, id="of-it")
    group.deliver(("effects", 0), [(OUTCOME, [("payer_2", outcome, 3)])])
    again.collect()
    assert [out.type for out in again.outgoing] == ["alert.paid"]
    assert list(group) == []
