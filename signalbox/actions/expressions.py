"""Expressions over JSON values in JMESPath, with bounds on what one of them can cost.

JMESPath (jmespath.org) has no loops, no side effects and no way out of the data. But it can double a value with each
step, `[@, @] | [@, @] | ...`, so a short text could fill the memory. Here every step and every element that a step
looks at or makes is counted, and the count is bounded: the same expression on the same data always ends the same way,
which a bound on time would not give. Not done here: arithmetic, which JMESPath does not have.
"""

from typing import Any

import msgspec
from jmespath import functions
from jmespath.exceptions import JMESPathError, JMESPathTypeError, ParseError
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter

from signalbox.actions.retry import ActionError

MAX_EXPRESSION = 2_000
"""Characters of an expression."""
MAX_NESTING = 100
"""Levels of an expression, of the data and of the result."""
MAX_STEPS = 300_000
"""Steps of one evaluation, and elements they look at. The worst we know takes 0.3 s."""
MAX_RESULT_BYTES = 450_000
"""Of a result as JSON."""

_VISIT = 2  # a step takes longer than a look at an element, which costs 1
_SMALL = frozenset((int, float, bool, type(None)))
_TEXT_SHARE = 16  # so many characters of a text cost what one element does
_DUPLICATING = frozenset(("multi_select_list", "multi_select_dict"))
_LOOKING_DEEP = frozenset(("comparator", "function_expression"))


class Expression:
    """A checked JMESPath expression. Any thread may use it.

    Raises:
        ActionError: `invalid_expression`; the message names the position, counted from 1.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._root = _parsed(text)
        self._weighed = frozenset(_check(text, self._root))

    def value(self, data: Any) -> Any:
        """What the expression makes of JSON values, as JSON values that share nothing with them.

        Raises:
            ActionError: `expression_failed`: it does not fit the data, or goes beyond a bound.
        """
        interpreter = _Interpreter(self._weighed)
        try:
            interpreter.weigh(data)
            found = interpreter.visit(self._root, data)
            interpreter.weigh(found)
            encoded = msgspec.json.encode(found)
        except _OutOfBounds as error:
            raise _failed(str(error)) from None
        except JMESPathTypeError as error:  # its text would repeat the data
            kinds = " or ".join(error.expected_types)
            msg = f"{error.function_name}() takes {kinds}, and was given {error.actual_type}"
            raise _failed(msg) from None
        except (JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError) as error:
            msg = f"it makes no sense for this data: {type(error).__name__}"
            raise _failed(msg) from error
        if len(encoded) > MAX_RESULT_BYTES:
            msg = f"the result has {len(encoded)} bytes as JSON; {MAX_RESULT_BYTES} are allowed"
            raise _failed(msg)
        return msgspec.json.decode(encoded)

    def holds(self, data: Any) -> bool:
        """Whether the value counts as true: in JMESPath all do but false, null and what is empty.

        Raises:
            ActionError: as `value`.
        """
        found = self.value(data)
        return found is not None and found is not False and found not in ("", [], {})


class _OutOfBounds(Exception):
    """The evaluation costs too much."""


class _Functions(functions.Functions):
    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        # The one function whose result can be larger than what it is given.
        if len(separator) * len(array) > MAX_RESULT_BYTES:
            msg = f"join() makes a text of more than {MAX_RESULT_BYTES} characters"
            raise _OutOfBounds(msg)
        return separator.join(array)


class _Interpreter(TreeInterpreter):
    """Counts what an evaluation costs. All elements of a value that it meets, shared ones repeated, are paid for."""

    def __init__(self, weighed: frozenset[int]) -> None:
        super().__init__(Options(custom_functions=_FUNCTIONS))
        self._weighed = weighed
        self._left = MAX_STEPS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().visit(node, *args, **kwargs)
        self._spend(_VISIT)
        # Numbers and the like, which are most of what there is, have nothing in them.
        if id(node) in self._weighed and type(found) not in _SMALL:
            self.weigh(found)
        return found

    def weigh(self, value: Any) -> None:
        """Pay for every element of a value, level by level."""
        level = [value]
        for _ in range(MAX_NESTING):
            self._spend(sum(1 + len(one) // _TEXT_SHARE if type(one) is str else 1 for one in level))
            level = [inner for one in level if isinstance(one, list | dict) for inner in _elements(one)]
            if not level:
                return
        msg = f"there are more than {MAX_NESTING} levels of values within values"
        raise _OutOfBounds(msg)

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            msg = f"it takes more than {MAX_STEPS} steps on this data"
            raise _OutOfBounds(msg)


def _elements(value: list[Any] | dict[str, Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def _parsed(text: str) -> Any:
    if not text.strip():
        raise _invalid(1, "it is empty")
    if len(text) > MAX_EXPRESSION:
        raise _invalid(MAX_EXPRESSION + 1, f"it has {len(text)} characters; {MAX_EXPRESSION} are allowed")
    try:
        return Parser().parse(text).parsed
    except ParseError as error:
        what = getattr(error, "message", "") or ("it ends too early" if error.token_value is None else "syntax error")
        raise _invalid(error.lex_position + 1, what) from None
    except (JMESPathError, ValueError) as error:
        raise _invalid(1, str(error)) from None
    except RecursionError:
        raise _invalid(1, f"it is nested more than {MAX_NESTING} levels deep") from None


def _check(text: str, root: Any) -> list[int]:
    """Look at every node before any data does; gives the ids of those whose values are weighed.

    Paid for in full is what puts a value into the result a second time, and what is looked at with all that it holds.
    """
    weighed: list[int] = []
    level = [root]
    for _ in range(MAX_NESTING):
        for node in level:
            if node["type"] == "function_expression":
                _check_call(text, node)
            if node["type"] == "literal":
                weighed.append(id(node))
            elif node["type"] in _DUPLICATING | _LOOKING_DEEP:
                weighed += map(id, node["children"])
        # The children of a slice are numbers.
        level = [child for node in level for child in node["children"] if isinstance(child, dict)]
        if not level:
            return weighed
    raise _invalid(1, f"it is nested more than {MAX_NESTING} levels deep")


def _check_call(text: str, node: Any) -> None:
    name, given = node["value"], len(node["children"])
    position = text.find(name) + 1
    known = _FUNCTIONS.FUNCTION_TABLE.get(name)
    if known is None:
        raise _invalid(position, f"there is no function {name}()")
    wanted = len(known["signature"])
    variadic = wanted > 0 and known["signature"][-1].get("variadic", False)
    if given < wanted or (given > wanted and not variadic):
        raise _invalid(position, f"{name}() takes {wanted} arguments, not {given}")


def _invalid(position: int, what: str) -> ActionError:
    return ActionError(f"the expression is wrong at character {position}: {what}", type="invalid_expression")


def _failed(what: str) -> ActionError:
    return ActionError(f"the expression fails: {what}", type="expression_failed")


_FUNCTIONS = _Functions()
