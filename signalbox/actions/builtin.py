"""The actions that ship."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from signalbox.actions.call_external_api import call_external_api
from signalbox.actions.complex_workflow import complex_workflow
from signalbox.actions.contract import Action, action
from signalbox.actions.distribute_task import distribute_task
from signalbox.actions.process_large_dataset import process_large_dataset
from signalbox.actions.transform import transform


class EchoParams(BaseModel):
    """Anything; it comes back as it is."""

    model_config = ConfigDict(extra="allow")
    value: Any = None


@action(effect=False)
def echo(params: EchoParams) -> EchoParams:
    """Return the parameters."""
    return params


BUILTIN_ACTIONS: tuple[Action, ...] = (
    echo,
    transform,
    call_external_api,
    process_large_dataset,
    complex_workflow,
    distribute_task,
)
