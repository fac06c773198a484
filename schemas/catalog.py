"""Which signal type carries which payload.

The catalogue lists exact types and no patterns: a pattern such as `alert.*` would promise a payload for types that
nobody emits. It holds the types that this code emits or reads, and no others; a user's own types are free, and their
models are named where they are handled (`signalbox.agents`). A type that is missing here is therefore not an error.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel

from schemas.control import AgentControl, AgentSpawn, FlowControl, ScaleCommand
from schemas.dead_letter import DEAD_LETTER_TYPE, DeadLetter
from schemas.payloads.actions import (
    ActionAttempted,
    ActionCancel,
    ActionCompleted,
    ActionFailed,
    ActionRequested,
    ActionStepEnded,
    BreakerChanged,
)
from schemas.payloads.agents import ActionFinished, ActionStarting, AgentError, AgentRegistered, AgentStopped
from schemas.payloads.alerts import Alert, AlertAck
from schemas.payloads.health import ResourceMetrics, ResourceUsage, SystemHealth
from schemas.payloads.load import LoadLevel, LoadMetrics, QueueOverflow
from schemas.payloads.nodes import NodeHeartbeat, NodeStopped
from schemas.payloads.scaling import AgentScaled, Autoscaling, PoolResized, Rescale, ScalingDecision
from schemas.payloads.tasks import (
    TaskCompleted,
    TaskDelegated,
    TaskDelegatedFinished,
    TaskDistribute,
    TaskFailed,
    TaskRejected,
    TaskSubmitted,
)

#: Signal type -> the model of its `data`.
PAYLOADS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "system.health.normal": SystemHealth,
        "system.health.warning": SystemHealth,
        "system.health.critical": SystemHealth,
        "system.resources.metrics": ResourceMetrics,
        "application.metrics": ResourceUsage,
        "system.load.high": LoadLevel,
        "system.load.low": LoadLevel,
        "system.load.metrics": LoadMetrics,
        "agent.queue.metrics": LoadMetrics,
        "agent.queue.overflow": QueueOverflow,
        "task.submitted": TaskSubmitted,
        "task.completed": TaskCompleted,
        "task.failed": TaskFailed,
        "task.rejected": TaskRejected,
        "task.distribute": TaskDistribute,
        "task.delegated": TaskDelegated,
        "task.delegated.finished": TaskDelegatedFinished,
        "action.requested": ActionRequested,
        "action.attempted": ActionAttempted,
        "action.step.ended": ActionStepEnded,
        "action.cancel": ActionCancel,
        "action.completed": ActionCompleted,
        "action.failed": ActionFailed,
        "breaker.changed": BreakerChanged,
        "alert.raised": Alert,
        "alert.escalated": Alert,
        "alert.resolved": Alert,
        "alert.acknowledged": Alert,
        "alert.ack": AlertAck,
        "agent.registered": AgentRegistered,
        "agent.stopped": AgentStopped,
        "coordinator.agent.registered": AgentRegistered,
        "coordinator.agent.stopped": AgentStopped,
        "agent.action.starting": ActionStarting,
        "agent.action.finished": ActionFinished,
        "agent.error": AgentError,
        "node.heartbeat": NodeHeartbeat,
        "node.stopped": NodeStopped,
        "scaling.decision.made": ScalingDecision,
        "scaling.decision.held": ScalingDecision,
        "scaling.rescale.started": Rescale,
        "scaling.rescale.step": Rescale,
        "scaling.rescale.completed": Rescale,
        "scaling.rescale.failed": Rescale,
        "scaling.agent.spawned": AgentScaled,
        "scaling.agent.terminated": AgentScaled,
        "scaling.pool.resized": PoolResized,
        "scaling.paused": Autoscaling,
        "scaling.resumed": Autoscaling,
        "control.scale": ScaleCommand,
        "control.pause": FlowControl,
        "control.resume": FlowControl,
        "control.drain": FlowControl,
        "control.agent.pause": AgentControl,
        "control.agent.resume": AgentControl,
        "control.agent.stop": AgentControl,
        "control.agent.spawn": AgentSpawn,
        DEAD_LETTER_TYPE: DeadLetter,
    }
)


def payload_model(type: str) -> type[BaseModel] | None:
    """The model of a shipped type's `data`, or None for a type that is not shipped."""
    return PAYLOADS.get(type)


def is_shipped(type: str) -> bool:
    """Whether this code emits or reads signals of exactly this type."""
    return type in PAYLOADS
