"""The scaling flow: load in, decisions and commands out, beside the work that they are about.

It is a flow of its own so that what tells of a backlog does not wait in that backlog. Of `signals` it looks at every
record, and decodes only those that may be about load; what is wrong with a record is the agents flow's to say.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from connectors.kafka.source import RecordBatch
from flows.assembly import Flow, assemble
from flows.intake import Addressed, Input, Intake
from signalbox import plugins
from signalbox.agents.plan import Plan
from signalbox.app import App
from signalbox.config import AgentSettings, FlowsSettings, Settings
from signalbox.skills.autoscaler_agent import AutoscalerAgent
from signalbox.supervision.targets import flow_policy

if TYPE_CHECKING:
    from confluent_kafka import Message

NAME = "scaling"
_INPUTS = ("signals", "scaling", "control")
#: What a record about load holds in its value. A backslash may hide it: JSON can spell any letter otherwise.
_ABOUT_LOAD = re.compile(rb"system\.load\.|agent\.queue\.|performance\.|\\u")
_HEADER_PREFIXES = ("ce_type", "ce-type")


def build(settings: Settings, *, workers: int = 1, index: int = 0) -> Flow:
    """Wire the flow of the autoscaler for worker process `index` of so many. Raises what `assemble` raises."""
    plan = autoscaler_plan(settings)
    return assemble(NAME, plan, settings, inputs=_INPUTS, workers=workers, index=index, intake=LoadIntake)


def autoscaler_plan(settings: Settings) -> Plan:
    """The autoscaler as the only agent, which knows the policies of the settings and the pools of the app."""
    pools = Plan(plugins.load_app(settings.node.app), settings).pools()
    name = AutoscalerAgent.name
    given = settings.agents.get(name, AgentSettings())
    scaling = settings.scaling
    known = {
        "flows": {flow: flow_policy(settings, flow).model_dump() for flow in FlowsSettings.model_fields},
        "pools": {pool: policy.model_dump(exclude_unset=True) for pool, policy in scaling.pools.items()},
        "sizes": {pool: addressing.size for pool, addressing in pools.items()},
        "enabled": scaling.enabled,
    }
    skills = {**given.skills, "auto_scaling": {**known, **given.skills.get("auto_scaling", {})}}
    own = settings.model_copy(update={"agents": {name: given.model_copy(update={"skills": skills})}})
    return Plan(App(agents=[AutoscalerAgent], builtins=False), own)


class LoadIntake(Intake):
    """Finds what is about load among everything that is said, and leaves the rest to the agents flow."""

    strict = False

    def parcels(self, inputs: Iterable[Input]) -> list[Addressed]:
        return super().parcels(_about_load(batch) for batch in inputs)


def _about_load(batch: Input) -> Input:
    if not isinstance(batch, RecordBatch) or batch.topic != "signals":
        return batch
    return batch._replace(messages=[message for message in batch.messages if _may_matter(message)])


def _may_matter(message: "Message") -> bool:
    value = message.value()
    if value is None:
        return False
    if _ABOUT_LOAD.search(value):
        return True
    # In binary mode the type is in a header, and the value is the data alone.
    return b'"specversion"' not in value and _ABOUT_LOAD.search(_type_header(message)) is not None


def _type_header(message: "Message") -> bytes:
    headers: Any = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    found = next((value for name, value in pairs if name.lower() in _HEADER_PREFIXES), None)
    return found if isinstance(found, bytes) else str(found or "").encode()
