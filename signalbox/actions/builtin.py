"""The actions that ship and compute without touching the world."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from signalbox.actions.contract import Action, action


class EchoParams(BaseModel):
    """Anything; it comes back as it is."""

    model_config = ConfigDict(extra="allow")
    value: Any = None


@action(effect=False)
def echo(params: EchoParams) -> EchoParams:
    """Return the parameters."""
    return params


BUILTIN_ACTIONS: tuple[Action, ...] = (echo,)
