"""Kafka transactions of a flow's output: what a worker wrote in an epoch is seen as a whole or never.

A worker process writes with one transactional producer, whose id names its place in the flow. Whoever initializes that
id again ends the transaction that is open under it and fences its former holder, which gets an error with its next
request. So a worker first takes over all ids that its predecessors may still hold, and only then looks at what they
wrote (`connectors.kafka.sink`, which also tells why an epoch that is written twice is seen once).

Only what goes through the sink is in transactions. Outcomes of actions (`connectors.kafka.journal`) are not.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.brokers.embedded import CLUSTER_ID as EMBEDDED
from connectors.kafka.client import CALL_TIMEOUT_S, LastError, client_config, translated, translating
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Conflict, SignalboxError, Unreachable

log = logging.getLogger(__name__)

#: A new transaction log is made, or another broker elected to lead it, in seconds; an open transaction takes one.
_INIT_TIMEOUT_S = 30.0
_COMMIT_LOG_EVERY_S = 5.0
_ABORT_TIMEOUT_S = 5.0
#: The broker ends a transaction that is open for longer than this and five epochs. Until then, readers of a worker that
#: died without a successor wait. Brokers allow 900 s by default.
_TIMEOUT_MS, _TIMEOUT_EPOCHS = 60_000, 5
#: As many ids are taken over at the same time.
_AT_ONCE = 8


class Transactions:
    """The transactions of one worker process, after those of its predecessors were ended.

    Its transactional id is `<topic prefix>signalbox.<flow>.<index>`, in every generation.

    Args:
        settings: the broker and the topic prefix.
        directory: where the node keeps the ids that it has used, one empty file each. Made when needed.
        flow: name of the flow.
        index: number of this worker process.
        workers: how many there are. They share out the ids of workers that there are no more.
        epoch_ms: from one commit to the next.
        used: whether this run writes in transactions. If not, it still ends those of an earlier run that did.

    Raises:
        ConfigError: the broker has no transactions that could be relied on.
        Unreachable: it does not answer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        directory: Path,
        flow: str,
        index: int,
        workers: int,
        epoch_ms: int,
        used: bool,
    ) -> None:
        self.used = used
        self._settings = settings
        self._directory = directory
        self._flow = flow
        self._index = index
        self._workers = workers
        self._timeout_ms = _TIMEOUT_MS + _TIMEOUT_EPOCHS * epoch_ms
        self._prefix = f"{settings.topic_prefix}signalbox.{flow}."
        self._id = f"{self._prefix}{index}"
        self._config: Mapping[str, object] = {}
        self._producer: Producer | None = None
        self._open = False
        self._troubled = False
        """Whether the client had an error since it was last asked."""
        if used:
            _refuse_embedded(settings)

    @property
    def producer(self) -> Producer:
        """The producer; another one after some commits."""
        assert self._producer is not None, "made by take_over"
        return self._producer

    def take_over(self, config: Mapping[str, object]) -> None:
        """Fence every predecessor whose place this worker has to see to, and make the producer if it is used.

        When all workers of a cluster have done so, nobody else writes any more, and what was written is settled.

        Args:
            config: of the producer, but for what makes it transactional.

        Raises:
            Unreachable: the broker does not answer.
            ConfigError: it does not allow for transactions of this length.
        """
        self._config = config
        former = self._former()
        if self.used:
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / self._id).touch()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            own = pool.submit(self._initialized, self._id) if self.used else None
            for one in [pool.submit(self._initialized, id_) for id_ in former]:
                one.result()
            self._producer = own.result() if own else None
        for id_ in former:
            log.info("ended what a former worker may have left open under the id %s", id_)
            (self._directory / id_).unlink(missing_ok=True)

    def begin(self) -> None:
        """Begin a transaction, unless one is open. Only for a run that writes in them, as are the methods below."""
        if not self._open:
            self.producer.begin_transaction()
            self._open = True

    def commit(self) -> None:
        """Make what was written since `begin` visible, however long the broker takes; returns when it is.

        Raises:
            KafkaException: it cannot be done, now or later.
        """
        if not self._open:
            return
        producer, began = self.producer, time.monotonic()
        producer.poll(0)
        self._troubled = False
        while True:
            try:
                # The client goes on with the same commit; a new one is never begun in place of one in doubt.
                producer.commit_transaction(_COMMIT_LOG_EVERY_S)
                break
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                waited = time.monotonic() - began
                log.warning("the broker has not confirmed a transaction for %.0f s", waited)
        self._open = False
        producer.poll(0)
        if self._troubled:
            # Its commit may have been sent twice, and the first still be under way: it would hit the next transaction.
            self._producer = self._initialized(self._id)

    def abort(self) -> None:
        """Take back what was written since `begin`, as far as the broker can be told now; else it finds out itself."""
        if self._open:
            self._open = False
            with contextlib.suppress(KafkaException):
                self.producer.abort_transaction(_ABORT_TIMEOUT_S)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Take back the transaction after an error inside, and tell of a successor as such.

        Raises:
            Conflict: another process writes in this worker's place, or the broker has ended its transaction.
            Unreachable: the transaction failed; the flow must restart and repeat.
        """
        try:
            yield
        except (KafkaException, SignalboxError) as error:
            self.abort()
            cause = error.args[0] if isinstance(error, KafkaException) else None
            if not isinstance(cause, KafkaError):
                raise
            explained = self._explained(cause)
            # Here too: when several processes of a cluster end at once, the engine tells of the lost connections only.
            log.error("%s", explained)
            raise explained from error

    def _explained(self, error: KafkaError) -> SignalboxError:
        if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError._FENCED):
            msg = f"worker {self._index} of {self._flow} may not write any more: {error.str()}"
            hint = (
                f"another process writes as {self._id}: a later start of this worker, or another node with the same "
                "kafka.topic_prefix. Or its transaction was open for longer than "
                f"{self._timeout_ms / 1000:.0f} s, because it stood still or the broker was away; then a restart is all"
            )
            return Conflict(msg, hint=hint)
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return translated(error, self._settings, "write a record")
        msg = f"a transaction failed and was taken back: {error.str()}"
        return Unreachable(msg, hint="the worker repeats it after a restart; if it goes on, the broker's log says why")

    def _former(self) -> list[str]:
        """This worker's share of the ids to fence.

        That is of a run without transactions any id that the flow has used, else those of workers there are no more.
        """
        first = self._workers if self.used else 0
        names = (path.name.removeprefix(self._prefix) for path in self._directory.glob(f"{self._prefix}*"))
        # By the number, since the others remove the files of theirs at the same time.
        used = (int(name) for name in names if name.isdecimal())
        mine = (number for number in used if number >= first and number % self._workers == self._index)
        return [f"{self._prefix}{number}" for number in sorted(mine)]

    def _initialized(self, id_: str) -> Producer:
        last_error = LastError()

        def note(error: KafkaError) -> None:
            last_error.note(error)
            self._troubled = True

        own = {"transactional.id": id_, "transaction.timeout.ms": self._timeout_ms, "error_cb": note}
        with translating(self._settings, f"begin transactions as {id_}", last_error):
            producer = Producer({**self._config, **own})
            try:
                producer.init_transactions(_INIT_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.INVALID_TRANSACTION_TIMEOUT:
                    raise
                msg = f"the broker does not allow for transactions of {self._timeout_ms / 1000:.0f} s"
                hint = "choose a smaller flows.agents.epoch_ms, or raise the broker's transaction.max.timeout.ms"
                raise ConfigError(msg, hint=hint) from error
        return producer


def _refuse_embedded(settings: KafkaSettings) -> None:
    producer = Producer(client_config(settings))
    with translating(settings, "learn which cluster it is"):
        cluster_id = producer.list_topics(timeout=CALL_TIMEOUT_S).cluster_id
    if cluster_id == EMBEDDED:
        msg = f"the broker at {settings.bootstrap} is the embedded one, which shows transactions that were taken back"
        raise ConfigError(msg, hint="use Apache Kafka, or leave flows.agents.delivery at effectively_once")
