"""What a process has written to a topic that it also reads, taken from the broker's word that it has it.

A worker reads back what it asks actions to do and how they ended, for only what the broker has is true. When no other
worker writes there, its acknowledgement says as much as the record that comes back, and sooner: it names the offset. So
a partition goes on with acknowledged records as long as no offset is missing between them. What is missing was written
by somebody else, and the consumer brings it: it looks at such a partition now and then, and not at every record.
"""

from collections.abc import Callable

from confluent_kafka import Message


class Echo:
    """Acknowledged records of one topic that are waited for, by partition and offset. Any thread may add some.

    Args:
        topic: without prefix.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.gather: Callable[[], object] = int
        """Lets the client that writes on the reader's thread call back for what the broker has acknowledged."""
        self._heard: dict[int, dict[int, Message]] = {}

    def listen(self, partition: int) -> None:
        """Keep what is written to a partition from now on; it will be taken, or forgotten."""
        self._heard[partition] = {}

    def ignore(self, partition: int) -> None:
        """Keep nothing of a partition any more."""
        self._heard.pop(partition, None)

    def heard(self, message: Message) -> None:
        """The broker has a record."""
        heard = self._heard.get(message.partition() or 0)
        if heard is not None:
            heard[message.offset() or 0] = message

    def take(self, partition: int, begin: int) -> list[Message]:
        """The records from an offset on, up to the first that is missing."""
        heard = self._heard[partition]
        if begin not in heard:
            self.gather()
        found: list[Message] = []
        while (message := heard.pop(begin, None)) is not None:
            found.append(message)
            begin += 1
        return found

    def forget(self, partition: int, end: int) -> None:
        """Let go of the records before an offset, which came another way."""
        heard = self._heard[partition]
        for offset in [offset for offset in heard.copy() if offset < end]:
            heard.pop(offset, None)
