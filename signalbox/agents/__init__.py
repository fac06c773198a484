"""Agents: the contract first (`contract`, `directives`), then how they run (`plan`, `group`), then those that ship."""

from signalbox.agents.contract import Agent, AgentState, Context, Keyed, Pool, Singleton, on
from signalbox.agents.directives import (
    CancelAction,
    CancelTimer,
    Directive,
    Emit,
    Reply,
    RunAction,
    Schedule,
    Spawn,
    Stop,
    minutes,
    seconds,
)
from signalbox.agents.foundation_agent import FoundationAgent
from signalbox.agents.skill import Skill
from signalbox.routing import data, state

__all__ = [
    "Agent",
    "AgentState",
    "CancelAction",
    "CancelTimer",
    "Context",
    "Directive",
    "Emit",
    "FoundationAgent",
    "Keyed",
    "Pool",
    "Reply",
    "RunAction",
    "Schedule",
    "Singleton",
    "Skill",
    "Spawn",
    "Stop",
    "data",
    "minutes",
    "on",
    "seconds",
    "state",
]
