"""The action `transform`: computes a value from JSON values by a JMESPath expression.

It runs within its agent's handler, so what an expression may cost is bounded (`signalbox.actions.expressions`).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from signalbox.actions.contract import action
from signalbox.actions.expressions import Expression


class TransformParams(BaseModel):
    """A value, and what to make of it."""

    model_config = ConfigDict(extra="forbid")
    data: Any = Field(description="Any JSON value.")
    expression: str = Field(description="A JMESPath expression, such as `items[?price > `10`].name`.")


@action(effect=False)
def transform(params: TransformParams) -> Any:
    """Compute the value of a JMESPath expression over the data.

    Raises:
        ActionError: `invalid_expression`, with the position; `expression_failed` if it does not fit the data.
    """
    return Expression(params.expression).value(params.data)
