"""Queries as people write them: `capability=task_processing and node!=a and metadata.load<0.5`.

    where      = all, { "or", all }
    all        = one, { "and", one }
    one        = "not", one  |  "(", where, ")"  |  comparison
    comparison = field, ( "=" | "!=" | "<" | "<=" | ">" | ">=" ), value
               | field, "in", "(", value, { ",", value }, ")"
               | field, "exists"

A value is a word, or a text in single or double quotes. In comparisons with metadata, words that are numbers, `true`
and `false` are those; in quotes they are texts. Elsewhere a value is a text. What the parts mean is in `terms.py`.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

from pydantic import ValidationError

from signalbox.registry.terms import MAX_DEPTH, Comparison, InvalidQuery, Op, Value

Plain: TypeAlias = dict[str, Any]
"""A query, or a part of one, as plain JSON values."""

_OPERATORS: dict[str, Op] = {"=": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator> != | <= | >= | [=<>] )
      | (?P<mark> [(),] )
      | "(?P<double> [^"]* )"
      | '(?P<single> [^']* )'
      | (?P<word> [^\s=!<>(),"']+ )
    )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
#: What 64 bits hold; longer ones are compared as floating point, as JSON readers take them.
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_RESERVED = ("and", "or", "not", "in", "exists")
_EXAMPLE = "write comparisons such as capability=task_processing and metadata.load<0.5"


class _Token(NamedTuple):
    text: str
    what: str
    """`operator`, `mark`, `quoted`, `word` or `end`."""
    position: int
    """Of its first character, from 1."""


def parse_where(text: str) -> Plain:
    """Read a query into plain JSON values, as `Query.of` takes them.

    Raises:
        InvalidQuery: with the position of what cannot be read.
    """
    parser = _Parser(_tokens(text))
    query = parser.where(depth=1)
    parser.expect_end()
    return query


def _tokens(text: str) -> list[_Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            msg = f"the query cannot be read at character {at + 1}: {text[at : at + 20]!r}"
            quote = "a quote is not closed" if text[at] in "\"'" else _EXAMPLE
            raise InvalidQuery(msg, hint=quote, position=at + 1)
        name = match.lastgroup
        what = "quoted" if name in ("double", "single") else name
        begin = match.start(name) - (what == "quoted")
        tokens.append(_Token(match[name], what, begin + 1))
        at = match.end()
    return [*tokens, _Token("", "end", end + 1)]


@dataclass(slots=True)
class _Parser:
    """Recursive descent; `_next` is the number of the token to be read."""

    _tokens: list[_Token]
    _next: int = 0

    def where(self, depth: int) -> Plain:
        parts = [self._all(depth)]
        while self._takes("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else {"any": parts}

    def expect_end(self) -> None:
        if self._token.what != "end":
            self._fail("expected and, or, or the end")

    def _all(self, depth: int) -> Plain:
        parts = [self._one(depth)]
        while self._takes("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else {"all": parts}

    def _one(self, depth: int) -> Plain:
        if depth > MAX_DEPTH:
            self._fail(f"nests deeper than {MAX_DEPTH} levels")
        if self._takes("not"):
            return {"not": self._one(depth + 1)}
        if self._takes("("):
            inner = self.where(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Plain:
        start = self._token
        if start.what != "word" or start.text in _RESERVED:
            self._fail("expected a comparison")
        self._next += 1
        is_text = not start.text.startswith("metadata.")
        if self._takes("exists"):
            return self._made(start, "exists", None)
        if self._takes("in"):
            self._expect("(")
            values = [self._value(is_text=is_text)]
            while self._takes(","):
                values.append(self._value(is_text=is_text))
            self._expect(")")
            return self._made(start, "in", tuple(values))
        if self._token.what != "operator":
            self._fail("expected = != < <= > >= in or exists")
        op = _OPERATORS[self._token.text]
        self._next += 1
        return self._made(start, op, self._value(is_text=is_text))

    def _value(self, *, is_text: bool) -> Value:
        token = self._token
        if token.what not in ("word", "quoted") or (token.what == "word" and token.text in _RESERVED):
            self._fail("expected a value")
        self._next += 1
        if is_text or token.what == "quoted":
            return token.text
        if token.text in ("true", "false"):
            return token.text == "true"
        if not _NUMBER.fullmatch(token.text):
            return token.text
        return int(token.text) if _INTEGER.fullmatch(token.text) else float(token.text)

    def _made(self, start: _Token, op: Op, value: Value | tuple[Value, ...] | None) -> Plain:
        try:
            made = Comparison(field=start.text, op=op, value=value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            msg = f"the comparison at character {start.position} makes no sense: {problem}"
            raise InvalidQuery(msg, hint=_EXAMPLE, position=start.position) from None
        return made.model_dump(mode="json", exclude_none=True)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _takes(self, text: str) -> bool:
        """Go past this word or mark, if it is next."""
        taken = self._token.text == text and self._token.what in ("word", "mark")
        self._next += taken
        return taken

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            self._fail(f"expected {text!r}")

    def _fail(self, problem: str) -> NoReturn:
        found = f"{self._token.text!r}" if self._token.what != "end" else "the end"
        msg = f"the query cannot be read at character {self._token.position}, {found}: {problem}"
        raise InvalidQuery(msg, hint=_EXAMPLE, position=self._token.position)
