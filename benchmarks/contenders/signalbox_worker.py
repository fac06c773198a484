"""`signalbox`: the agents flow in one worker process, as `signalbox up` starts it.

* Defaults throughout: `effectively_once`, recovery on with 1 s epochs, metrics, inspection socket, logs to a file.
* Its app is the agent that does the job (`signalbox_agents`) beside the shipped ones, as a user's app has it.
* Nothing of it is replaced; the consumer class is wrapped for the time of the first poll.
"""

import os
import sys
from unittest.mock import patch

import confluent_kafka

from connectors.kafka import hub
from contenders.work import Orders, timed_consumer
from flows import worker


def main() -> int:
    """Run until SIGTERM."""
    orders = Orders.from_environment()
    prefix = orders.source.removesuffix("signals")
    os.environ |= {
        "SIGNALBOX_KAFKA__BOOTSTRAP": orders.bootstrap,
        "SIGNALBOX_KAFKA__TOPIC_PREFIX": prefix,
        "SIGNALBOX_NODE__DATA_DIR": str(orders.state_dir),
        "SIGNALBOX_NODE__APP": "contenders.signalbox_agents:app",
    }
    distributions = ("bytewax", "confluent-kafka", "msgspec")
    timed = timed_consumer(confluent_kafka.Consumer, orders, distributions)
    with patch.object(hub, "Consumer", timed):  # fails where there is none any more
        return worker.main(["agents", "--index", "0"])


if __name__ == "__main__":
    sys.exit(main())
