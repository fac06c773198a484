"""How the command line is built: global options on either side of a command's name, and one place for errors.

Commands raise errors of `signalbox.errors`; only `Root.main` turns them into words on stderr and an exit code. What the
global options mean is in `signalbox.cli.session`.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from signalbox.cli.session import Session
from signalbox.errors import SignalboxError

PROGRAM = "signalbox"
#: The help panel that marks an option of the root as one that every command takes.
GLOBAL_PANEL = "Global options"
#: The exit code after Ctrl-C, as shells give it.
INTERRUPTED = 130


class _SectionsMixin:
    """Makes the help show the global options apart from a command's own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shared = {option.name for option in _global_options(ctx)}
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], GLOBAL_PANEL: []}
        for parameter in self.get_params(ctx):  # type: ignore[attr-defined]
            argument = parameter.param_type_name == "argument"
            place = GLOBAL_PANEL if parameter.name in shared else "Arguments" if argument else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                sections[place].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)


class _GlobalOptionsMixin(_SectionsMixin):
    """Makes a command take the root's global options, so that they may also stand after its name."""

    def get_params(self, ctx: Any) -> list[Any]:
        own = super().get_params(ctx)  # type: ignore[misc]
        names = {parameter.name for parameter in own}
        return [*own, *(option for option in _global_options(ctx) if option.name not in names)]

    def invoke(self, ctx: Any) -> Any:
        given: dict[str, Any] = {}
        for option in _global_options(ctx):
            value = ctx.params.pop(option.name, None)
            source = ctx.get_parameter_source(option.name)
            # The root has read the environment already, and its own command line wins over that.
            if source is not None and source.name == "COMMANDLINE":
                given[option.name] = value
        session(ctx).add(given)
        return super().invoke(ctx)  # type: ignore[misc]


class Command(_GlobalOptionsMixin, TyperCommand):
    """A command."""


class Group(_GlobalOptionsMixin, TyperGroup):
    """A group of commands about one noun."""


class Root(_SectionsMixin, TyperGroup):
    """The program itself: runs a command and ends the process with its exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        self._main_shell_completion(extra, PROGRAM, complete_var)
        state = Session()
        words = list(sys.argv[1:] if args is None else args)
        try:
            with self.make_context(PROGRAM, words, obj=state, **extra) as ctx:
                self.invoke(ctx)
            sys.stdout.flush()
            code = 0
        except SystemExit:  # the answer to a shell that asks for its completion
            raise
        except BaseException as error:  # noqa: BLE001 - the end of the line: everything becomes an exit code
            code = exit_code(error, verbose=state.options.verbose > 0)
        sys.exit(code)


def group(help: str) -> typer.Typer:
    """An empty group of commands; `main.py` gives it its name."""
    return typer.Typer(cls=Group, help=help, no_args_is_help=True)


def session(ctx: typer.Context) -> Session:
    """What the global options of this run say."""
    return cast("Session", ctx.find_root().obj)


def exit_code(error: BaseException, *, verbose: bool) -> int:
    """Say on stderr what went wrong and what to do about it, and return the exit code for it."""
    match error:
        case typer.Exit():
            return error.exit_code
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED
        case BrokenPipeError():
            # Whoever read our output has all it wanted, as in `signalbox topic tail signals | head`.
            _silence_stdout()
            return 0
    if verbose and not isinstance(error, TyperException):
        traceback.print_exception(error)
    match error:
        case TyperException():
            _say_usage(error)
            return error.exit_code
        case SignalboxError():
            say_error(str(error), error.hint)
            return error.exit_code
        case _:
            say_error(f"unexpected {type(error).__name__}: {error}", None if verbose else "-v shows the traceback")
            return SignalboxError.exit_code


def note_interrupts() -> threading.Event:
    """An event that Ctrl-C sets, for loops that end only by it.

    The exception alone may be lost: one that is raised in a destructor or in a callback of a C library is only printed.
    """
    interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
    return interrupted


def say_error(message: str, hint: str | None = None) -> None:
    """Write `error: ...` and `hint: ...` to stderr."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(f"error: {message}", err=True)
        if hint:
            typer.echo(f"hint: {hint}", err=True)


def _say_usage(error: TyperException) -> None:
    message = error.format_message()
    if not message:  # the help was shown in place of a message
        return
    ctx = getattr(error, "ctx", None)
    say_error(message, f"`{ctx.command_path} --help` shows how it is used" if ctx else None)


def _global_options(ctx: Any) -> list[Any]:
    root = ctx.find_root().command
    return [parameter for parameter in root.params if getattr(parameter, "rich_help_panel", None) == GLOBAL_PANEL]


def _silence_stdout() -> None:
    """Keep the interpreter from complaining about a broken pipe when it flushes stdout at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
