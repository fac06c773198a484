"""Whatever is asked for, given back, cancelled and forgotten in whatever order: a pool stays fair and loses nothing."""

import asyncio
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from signalbox.clock import VirtualClock
from signalbox.resources import ResourceExhausted, Token
from tests.support.loops import settle
from tests.support.resources import make_manager

TOTAL, TTL_S = 4, 10
AMOUNTS = st.integers(1, TOTAL)


class Sharing(RuleBasedStateMachine):
    """A manager beside a model: who holds what until when, and who waits in which order."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock()
        self.manager = make_manager(clock=self.clock)
        self.count = 0
        self.held: dict[str, tuple[Token, float]] = {}
        self.queue: list[tuple[str, int, asyncio.Task[Token]]] = []

    def teardown(self) -> None:
        for _, _, task in self.queue:
            task.cancel()
        self.loop.run_until_complete(settle())
        self.loop.close()

    def name(self) -> str:
        self.count += 1
        return f"h{self.count}"

    @property
    def free(self) -> int:
        return TOTAL - sum(token.tokens for token, _ in self.held.values())

    def serve(self) -> None:
        """What the model says must have happened: in order, all at the head of the queue that fit have theirs."""
        self.loop.run_until_complete(settle())
        while self.queue and self.queue[0][1] <= self.free:
            name, _, task = self.queue.pop(0)
            assert task.done(), f"{name} was not woken"
            self.held[name] = (task.result(), self.clock.monotonic() + TTL_S)
        assert [name for name, _, task in self.queue if task.done()] == []

    @rule(target=tokens, amount=AMOUNTS)
    def try_to_take(self, amount):
        name, fits = self.name(), amount <= self.free and not self.queue
        try:
            token = self.manager.try_acquire("p", amount, holder=name)
        except ResourceExhausted:
            assert not fits
            return multiple()
        assert fits
        self.held[name] = (token, self.clock.monotonic() + TTL_S)
        return token

    @rule(amount=AMOUNTS)
    def ask(self, amount):
        name = self.name()
        self.queue.append((name, amount, self.loop.create_task(self.manager.acquire("p", amount, holder=name))))
        self.serve()

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            name = data.draw(st.sampled_from(sorted(self.held)))
            token, _ = self.held.pop(name)
            self.manager.release(token)
            self.serve()

    @rule(token=tokens)
    def release_again(self, token):
        if token.holder not in self.held:
            self.manager.release(token)

    @rule(token=consumes(tokens))
    def renew(self, token):
        renewed = self.manager.renew(token)
        assert renewed == (token.holder in self.held)
        if renewed:
            self.held[token.holder] = (token, self.clock.monotonic() + TTL_S)

    @rule(data=st.data())
    def give_up(self, data):
        if self.queue:
            index = data.draw(st.integers(0, len(self.queue) - 1))
            self.queue.pop(index)[2].cancel()
            self.serve()

    @rule(data=st.data())
    def give_up_when_served(self, data):
        """The cancellation and the token meet."""
        if self.held and self.queue:
            name = data.draw(st.sampled_from(sorted(self.held)))
            self.manager.release(self.held.pop(name)[0])
            if self.queue[0][1] <= self.free:
                self.queue.pop(0)[2].cancel()
            self.serve()

    @rule(seconds=st.integers(1, 12))
    def forget(self, seconds):
        self.clock.advance(timedelta(seconds=seconds))
        self.manager.expire()
        now = self.clock.monotonic()
        self.held = {name: (token, until) for name, (token, until) in self.held.items() if until > now}
        self.serve()

    @invariant()
    def usage_is_as_the_model_has_it(self):
        usage = self.manager.usage()["p"]
        assert usage.used == TOTAL - self.free <= TOTAL
        assert usage.waiting == sum(amount for _, amount, _ in self.queue)


Sharing.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSharing = Sharing.TestCase
