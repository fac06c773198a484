"""One full and one smallest example of every payload, as JSON values."""

from typing import Any

AT = "2026-01-02T03:04:05Z"
_HEALTH = {"memory_usage": 0.5, "cpu_usage": 0.25, "disk_usage": 1, "process_count": 7, "timestamp": AT}
_ALERT = {
    "alert_id": "a1",
    "dedup_key": "host-1/cpu_usage",
    "subject": "host-1",
    "metric": "cpu_usage",
    "severity": "warning",
    "state": "raised",
    "value": 0.9,
    "raised_at": AT,
    "updated_at": AT,
}
_USAGE = {"name": "agents-0", "pid": 42, "rss_bytes": 1024, "cpu_ratio": 1.5, "threads": 3, "timestamp": AT}
_TASK = {"task_id": "t1", "action": "echo", "params": {}}
_FAILED = {
    "task_id": "t1",
    "agent_id": "task_agent_1",
    "error": {"type": "ValueError", "message": "no"},
    "attempts": 0,
}
_DISTRIBUTE = _TASK | {"required_capability": ["translation"]}
_DELEGATED = _TASK | {"delegation_id": "d1", "attempt": 1, "coordinator": "main_coordinator"}
_DELEGATED_FINISHED = {
    "task_id": "t1",
    "delegation_id": "d1",
    "attempt": 1,
    "agent_id": "task_agent_1",
    "duration_ms": 0.5,
    "attempts": 1,
}
_REGISTERED = {
    "agent_id": "task_agent_1",
    "agent_type": "task_agent",
    "kind": "pool",
    "node": "node-1",
    "version": "0.1.0",
    "started_at": AT,
}
_HEARTBEAT = {"node": "node-1", "version": "0.1.0", "started_at": AT, "interval_s": 5, "workers": 2}
_ACTION = {"agent_id": "task_agent_1", "action": "echo", "instruction_id": "i1"}
_REQUESTED = {"agent_id": "task_agent_1", "action": "echo", "params": {}}
_OUTCOME = {
    "instruction_id": "i1",
    "agent_id": "task_agent_1",
    "action": "echo",
    "duration_ms": 1.5,
    "attempts": 2,
}
_ERROR = {
    "agent_id": "a",
    "handler": "too_cold",
    "signal_id": "s1",
    "signal_type": "room.temperature",
    "error": {"type": "KeyError", "message": "celsius"},
    "error_count": 1,
}
_DEAD = {
    "reason": "invalid_json",
    "message": "truncated",
    "origin": {"topic": "signals", "partition": 0, "offset": 9},
    "size_bytes": 0,
}

_DECISION = {
    "decision_id": "d1",
    "target": "flow/agents",
    "decided_at": AT,
    "current": 1,
    "desired": 2,
    "reason": "lag",
    "message": "much waits",
    "terms": {"lag": 12.5, "units": 1, "why": "x", "none": None},
    "inputs": {"policy": {}, "memory": {}, "sample": {}},
}
_RESCALE = {
    "rescale_id": "r1",
    "target": "flow/agents",
    "generation": 3,
    "before": 1,
    "desired": 2,
    "step": "drain",
    "workers": 1,
}
_SCALED = {"agent_id": "task_agent_6", "pool": "task_agent", "reason": "high_load", "total_agents": 6}
_RESIZED = {"pool": "task_agent", "size": 6, "before": 5}
_SCALE = {"target": "pool/task_agent", "desired": 6, "reason": "a fair"}
_LOAD = {
    "units": 1,
    "arrivals": 10.5,
    "processed": 9.5,
    "lag": 100,
    "busy": 0.5,
    "service_s": 0.01,
    "throttled": 0.5,
    "memory": 0.2,
    "partitions": 8,
    "hottest": 0.25,
    "hot_key": "order-1",
    "stuck": 1,
    "stuck_lag": 20,
    "pauses": [0.2, 0.3],
    "changing": True,
    "unknown": "agents-1 does not answer",
    "timestamp": AT,
}
_LEVEL = {"resource": "memory", "ratio": 1.2, "level": "critical"}

#: By model name: the required fields alone, and all fields.
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SystemHealth": (_HEALTH, _HEALTH | {"level": "warning", "memory_scope": "cgroup"}),
    "ResourceUsage": (_USAGE, _USAGE | {"open_fds": 12}),
    "ResourceMetrics": (
        {"levels": [], "alert_threshold": 0.9, "timestamp": AT},
        {"levels": [_LEVEL], "alert_threshold": 0.9, "timestamp": AT},
    ),
    "LoadLevel": (
        {"load": 0.93},
        {"load": 0.93, "pool": "task_agent", "target": "flow/agents", "timestamp": AT},
    ),
    "QueueOverflow": ({}, {"pool": "task_agent", "queued": 700, "limit": 500, "timestamp": AT}),
    "LoadMetrics": ({"units": 1}, _LOAD),
    "ScalingDecision": (_DECISION, _DECISION),
    "AgentScaled": (_SCALED, _SCALED | {"decision_id": "d1"}),
    "PoolResized": (_RESIZED, _RESIZED | {"reason": "a fair", "decision_id": "d1"}),
    "Rescale": (
        _RESCALE,
        _RESCALE
        | {"reason": "lag", "decision_id": "d1", "error": "no", "duration_s": 0.5, "pause_s": 0.2, "note": "tight"},
    ),
    "Autoscaling": ({}, {"reason": "a release"}),
    "ScaleCommand": (_SCALE, _SCALE | {"decision_id": "d1", "expected": 5}),
    "FlowControl": ({"flow": "agents"}, {"flow": "agents", "reason": "a release"}),
    "ActionRequested": (
        _REQUESTED,
        _REQUESTED | {"params": {"value": 1}, "context": {"run": "r"}, "deadline": AT, "priority": 5, "name": "n"},
    ),
    "ActionAttempted": (
        {"instruction_id": "i1", "attempt": 2, "reason": "retry"},
        {"instruction_id": "i1", "attempt": 3, "reason": "restart"},
    ),
    "ActionStepEnded": (
        {"instruction_id": "i1", "key": "reserve", "action": "echo"},
        {
            "instruction_id": "i1",
            "key": "undo:reserve",
            "action": "echo",
            "result": [1],
            "error": {"type": "refused", "message": "no", "retryable": False},
        },
    ),
    "ActionCancel": ({"agent_id": "a", "name": "charge"}, {"agent_id": "a", "name": "charge"}),
    "BreakerChanged": (
        {"dependency": "bank", "before": "closed", "after": "open", "node": "n1"},
        {"dependency": "api.example.org:443", "before": "half_open", "after": "closed", "node": "n1"},
    ),
    "ActionCompleted": (_OUTCOME, _OUTCOME | {"result": {"value": [1]}, "context": [1, None]}),
    "ActionFailed": (
        _OUTCOME | {"attempts": 0, "error": {"type": "ValueError", "message": "no"}},
        _OUTCOME | {"error": {"type": "ValueError", "message": "no", "retryable": True}, "context": "c"},
    ),
    "TaskSubmitted": (_TASK, _TASK | {"params": {"value": [1, None]}, "deadline": AT, "priority": -5}),
    "TaskCompleted": (
        {"task_id": "t1", "agent_id": "task_agent_1", "result": None, "duration_ms": 0, "attempts": 1},
        {"task_id": "t1", "agent_id": "task_agent_1", "result": {"value": [1]}, "duration_ms": 0.5, "attempts": 2},
    ),
    "TaskFailed": (_FAILED, _FAILED | {"error": {"type": "ValueError", "message": "no", "retryable": True}}),
    "TaskRejected": (
        {"task_id": "t1", "reason": "unknown_action"},
        {"task_id": "t1", "reason": "unknown_action", "agent_id": "task_agent_1", "message": "there is no action `x`"},
    ),
    "TaskDistribute": (
        _DISTRIBUTE,
        _DISTRIBUTE | {"deadline": AT, "priority": 5, "strategy": "least_loaded", "subject": "order-1"},
    ),
    "TaskDelegated": (_DELEGATED, _DELEGATED | {"params": {"value": 1}, "deadline": AT, "priority": 5}),
    "TaskDelegatedFinished": (
        _DELEGATED_FINISHED,
        _DELEGATED_FINISHED | {"result": [1], "error": {"type": "E", "message": "m", "details": {"steps": []}}},
    ),
    "Alert": (
        _ALERT,
        _ALERT
        | {
            "threshold": 0.8,
            "evidence": [{"at": AT, "value": 0.9}, {"at": AT, "value": 1, "signal_id": "s1"}],
            "message": "cpu_usage is 0.9",
            "count": 3,
            "acknowledged_by": "ann",
        },
    ),
    "AlertAck": ({"alert_id": "a1", "by": "ann"}, {"alert_id": "a1", "dedup_key": "k", "by": "ann", "note": "mine"}),
    "AgentRegistered": (
        _REGISTERED,
        _REGISTERED | {"capabilities": ["validation"], "metadata": {"max": 100}, "status": "paused"},
    ),
    "AgentStopped": (
        {"agent_id": "a", "stopped_at": AT},
        {"agent_id": "a", "stopped_at": AT, "reason": "idle"},
    ),
    "NodeHeartbeat": (_HEARTBEAT, _HEARTBEAT | {"agents": 100_000}),
    "NodeStopped": (
        {"node": "node-1", "stopped_at": AT},
        {"node": "node-1", "stopped_at": AT, "reason": "maintenance"},
    ),
    "ActionStarting": (_ACTION, _ACTION),
    "ActionFinished": (
        _ACTION | {"status": "completed", "duration_ms": 1.5},
        _ACTION | {"status": "failed", "duration_ms": 1.5, "error": {"type": "E", "message": "m", "retryable": False}},
    ),
    "AgentError": (_ERROR, _ERROR),
    "AgentControl": ({"agent_id": "a"}, {"agent_id": "a", "reason": "maintenance"}),
    "AgentSpawn": ({"agent_type": "thermostat", "subject": "kitchen"}, {"agent_type": "thermostat", "subject": "k"}),
    "DeadLetter": (
        _DEAD,
        _DEAD
        | {
            "origin": {"topic": "signals", "partition": 0, "offset": 9, "timestamp": AT},
            "key_base64": "aw==",
            "value_base64": "ew==",
            "headers": [["ce_id", "MQ=="], ["empty", None]],
            "size_bytes": 1,
            "sha256": "0" * 64,
            "truncated": False,
            "signal_id": "1",
            "signal_type": "t",
            "agent_id": "a",
        },
    ),
}
