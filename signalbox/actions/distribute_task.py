"""The action `distribute_task`: the task is not done here but handed to the coordinator, which answers it.

A pure action that returns a `HandOver` ends without an answer of its own; `signalbox.agents.task_agent` sends the
signal. Who gets the task then, and when it fails: `signalbox.agents.coordinator_agent`.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, field_validator

from schemas.payloads.base import Name
from schemas.payloads.tasks import Strategy
from signalbox.actions.contract import action

#: The id of the coordinator that ships.
COORDINATOR = "main_coordinator"


class HandOver(BaseModel):
    """The result of a pure action whose task somebody else answers.

    The signal that is sent has `data` and, from the task itself, `task_id`, `subject`, `deadline` and `priority`.
    """

    type: str
    """Type of the signal."""
    subject: str
    """Subject of the signal, which finds the agent that takes over."""
    data: dict[str, Any]
    deadline: datetime | None = None
    """When the task has to be done, if that is sooner than the task itself says."""


class DistributedTask(BaseModel):
    """What is to be done."""

    action: Name
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("action")
    @classmethod
    def _is_not_distributed_again(cls, action: str) -> str:
        if action == distribute_task.name:
            msg = "a distributed task cannot be distributed again"
            raise ValueError(msg)
        return action


class DistributeTaskParams(BaseModel):
    """A task, and what the agent that does it has to offer."""

    required_capability: Annotated[
        tuple[Name, ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
        Field(min_length=1, max_length=20),
    ]
    """One capability, or several that are all needed."""
    task: DistributedTask
    deadline: AwareDatetime | None = None
    strategy: Strategy | None = None
    """How to choose among the agents; by default as the coordinator is set."""


@action(effect=False)
def distribute_task(params: DistributeTaskParams) -> HandOver:
    """Let an agent do the task that offers the capabilities it needs."""
    return HandOver(
        type="task.distribute",
        subject=COORDINATOR,
        data={
            "action": params.task.action,
            "params": params.task.params,
            "required_capability": params.required_capability,
            "strategy": params.strategy,
        },
        deadline=params.deadline,
    )
