"""The action `complex_workflow`: steps that are other actions, one after another, and undone if one of them fails.

It is a saga: a step may name a compensation, which undoes it. How each step ended is journaled before the next begins
(`ActionContext.call`), so a process that dies in the middle repeats no step that had ended. Steps do not run side by
side. A workflow that its deadline cuts short ends there and then, with nothing undone.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeAlias

import msgspec
from pydantic import BaseModel, Field, field_validator, model_validator

from schemas.payloads.base import ErrorInfo, Name
from signalbox.actions.contract import ActionContext, action
from signalbox.actions.distribute_task import distribute_task
from signalbox.actions.references import MissingReference, references, resolved
from signalbox.actions.retry import ActionError

MOST_STEPS = 100
#: Parameters of one step, with what they refer to in place, as JSON. Results may be large and referred to often.
MOST_PARAMS_BYTES = 200_000
#: So much of a step's error message is kept, in characters: a report may hold a hundred of them.
_MESSAGE_CHARACTERS = 300

StepName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
StepStatus: TypeAlias = Literal["completed", "failed", "skipped", "compensated", "compensation_failed"]
WorkflowStatus: TypeAlias = Literal["completed", "partial", "rolled_back", "rollback_failed"]


class NamesActions(BaseModel):
    """Parameters that name other actions, which a task agent looks for before anything runs."""

    @abstractmethod
    def named_actions(self) -> set[str]:
        """The names."""


class StepAction(BaseModel):
    """An action with its parameters. `{"$ref": "steps.NAME.result.FIELD"}` in them is a part of an earlier result."""

    action: Name
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("action")
    @classmethod
    def _can_be_a_step(cls, action: str) -> str:
        if action in (complex_workflow.name, distribute_task.name):
            msg = f"{action!r} cannot be a step"
            raise ValueError(msg)
        return action


class Step(StepAction):
    """One step."""

    name: StepName
    compensation: StepAction | None = None
    """What undoes it. It must accept that there is nothing to undo."""


class ComplexWorkflowParams(NamesActions):
    """Steps in their order, and what happens when one fails."""

    steps: tuple[Step, ...] = Field(min_length=1, max_length=MOST_STEPS)
    rollback_on_error: bool = True
    """Undo the steps before the one that failed, the latest first."""
    continue_on_partial_failure: bool = False
    """Go on instead, without those steps that refer to one that did not complete; nothing is undone."""

    @model_validator(mode="after")
    def _refers_only_back(self) -> Self:
        earlier: set[str] = set()
        for step in self.steps:
            if step.name in earlier:
                msg = f"there are two steps called {step.name!r}"
                raise ValueError(msg)
            _require_known(references(step.params), earlier, f"the step {step.name!r}")
            earlier.add(step.name)
            if step.compensation is not None:
                _require_known(references(step.compensation.params), earlier, f"the compensation of {step.name!r}")
        return self

    def named_actions(self) -> set[str]:
        """The actions of all steps and compensations."""
        undoing = (step.compensation for step in self.steps if step.compensation is not None)
        return {one.action for one in (*self.steps, *undoing)}


class StepReport(BaseModel):
    """What became of one step."""

    name: str
    status: StepStatus
    result: Any = None
    error: ErrorInfo | None = None
    """Why it failed or was skipped, or why it could not be undone."""


class WorkflowReport(BaseModel):
    """What became of a workflow."""

    status: WorkflowStatus
    steps: list[StepReport]


class WorkflowFailed(ActionError):
    """A workflow that was rolled back, or could not be.

    Attributes:
        details: the report as JSON values, without the results of steps.
    """

    def __init__(self, message: str, report: WorkflowReport) -> None:
        details = report.model_dump(mode="json", exclude={"steps": {"__all__": {"result"}}})
        super().__init__(message, type=report.status, details=details)


@action(ends_itself=True)
async def complex_workflow(params: ComplexWorkflowParams, context: ActionContext) -> WorkflowReport:
    """Run steps one after another, and undo them if one fails."""
    return await _Workflow(params, context).run()


class _Workflow:
    """One run."""

    def __init__(self, params: ComplexWorkflowParams, context: ActionContext) -> None:
        self._params = params
        self._context = context
        self._results: dict[str, Any] = {}
        """Of the steps that completed, in their order."""
        self._reports: dict[str, StepReport] = {}

    async def run(self) -> WorkflowReport:
        """Run it to its end.

        Raises:
            WorkflowFailed: a step failed, and those before it were undone, or could not be.
        """
        for step in self._params.steps:
            report = self._reports[step.name] = await self._do(step)
            if report.status == "failed" and not self._params.continue_on_partial_failure:
                self._skip_the_rest()
                if self._params.rollback_on_error:
                    await self._roll_back(report)
                break
        return self._report("completed" if len(self._results) == len(self._params.steps) else "partial")

    def _skip_the_rest(self) -> None:
        for step in self._params.steps[len(self._reports) :]:
            self._reports[step.name] = StepReport(name=step.name, status="skipped")

    async def _do(self, step: Step) -> StepReport:
        if lost := sorted({name for name, _ in references(step.params)} - self._results.keys()):
            error = ErrorInfo(type="missing_result", message=f"there is no result of {', '.join(lost)}")
            return StepReport(name=step.name, status="skipped", error=error)
        try:
            result = self._results[step.name] = await self._call(step, step.name)
        except ActionError as failure:
            return StepReport(name=step.name, status="failed", error=_error_info(failure))
        return StepReport(name=step.name, status="completed", result=result)

    async def _roll_back(self, failed: StepReport) -> None:
        """Undo what completed, the latest first; what cannot be undone does not keep the rest from it."""
        completed = [step for step in self._params.steps if step.name in self._results]
        for step in reversed(completed):
            if step.compensation is None:
                continue
            report = self._reports[step.name]
            try:
                await self._call(step.compensation, f"undo:{step.name}", cleanup=True)
                report.status = "compensated"
            except ActionError as failure:
                report.status, report.error = "compensation_failed", _error_info(failure)
        stuck = [report.name for report in self._reports.values() if report.status == "compensation_failed"]
        why = f"the step {failed.name!r} failed: {failed.error.message if failed.error else ''}"
        if stuck:
            msg = f"{why}; could not be undone: {', '.join(stuck)}"
            raise WorkflowFailed(msg, self._report("rollback_failed"))
        raise WorkflowFailed(why, self._report("rolled_back"))

    async def _call(self, what: StepAction, key: str, *, cleanup: bool = False) -> Any:
        """Run an action as a step.

        Raises:
            ActionError: it failed, or its parameters refer to what is not there.
        """
        try:
            params = resolved(what.params, self._results)
        except MissingReference as missing:
            raise ActionError(str(missing), type="invalid_reference") from None
        size = len(msgspec.json.encode(params))
        if size > MOST_PARAMS_BYTES:
            msg = (
                f"the parameters have {size} bytes as JSON with what they refer to; at most {MOST_PARAMS_BYTES} may be"
            )
            raise ActionError(msg, type="params_too_large")
        return await self._context.call(what.action, params, key=key, cleanup=cleanup)

    def _report(self, status: WorkflowStatus) -> WorkflowReport:
        return WorkflowReport(status=status, steps=list(self._reports.values()))


def _require_known(found: Iterator[tuple[str, str]], known: set[str], where: str) -> None:
    for name, reference in found:
        if name not in known:
            msg = f"{where} refers to {reference!r}, and there is no step {name!r} before it"
            raise ValueError(msg)


def _error_info(failure: ActionError) -> ErrorInfo:
    return ErrorInfo(
        type=failure.type[:256] or "ActionError",
        message=str(failure)[:_MESSAGE_CHARACTERS],
        retryable=failure.retryable,
    )
