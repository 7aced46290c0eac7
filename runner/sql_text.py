"""SQL text read as the server reads it: where a statement begins and ends, and what a migration may not hold.

sqlparse takes `'\'` for a string that goes on, and the first `*/` for the end of a nested comment: what it calls one
statement may hold a `commit` of its own. So the few rules of PostgreSQL's lexer that matter here are written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

# A string goes on, quoted as it began, after blanks that hold a line break.
_GOES_ON: Final = r"(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]+|--[^\n\r]*[\n\r])*'"
_LETTER: Final = r"A-Za-z_\x80-\U0010ffff"
_TOKEN: Final = re.compile(
    rf"""
      (?P<blank>[ \t\n\r\f\v]+ | --[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'{_GOES_ON}(?:[^'\\]|\\.|'')*)*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    | (?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    | (?P<number>[0-9][A-Za-z0-9_.]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")

_TRANSACTION: Final = "a migration runs in the runner's transaction, and neither ends it nor begins another"
_PSQL: Final = "a command of psql, which is no SQL"
_COPY: Final = "a COPY from or to the client has no data here; write an INSERT, or load a file"
_OUTSIDE: Final = (
    "a COPY with a program or a file of the server acts outside of the transaction, where nothing takes it back;"
    " load the file with the runner, or run it by hand before or after the migrations"
)
_ZERO: Final = "the server reads nothing that stands behind it"

_ENDS: Final = frozenset({"begin", "commit", "end", "rollback", "abort", "savepoint", "release"})
_TWO_WORDS: Final = frozenset({("start", "transaction"), ("prepare", "transaction")})
_SPLITS: Final = frozenset({";", "begin", "then", "else", "loop", ">"})
"""Behind these a statement of PL/pgSQL begins."""
_SETTINGS: Final = re.compile(r"transaction(_isolation|_read_only|_deferrable)?")
_CLIENT: Final = frozenset({"stdin", "stdout"})
_FILE: Final = frozenset({"program", "<string>", "<dollar>"})


@dataclass(frozen=True, slots=True)
class Refused:
    """What a migration may not hold: on which line, in which words, and why."""

    line: int
    words: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.words}: {self.reason}"


@dataclass(slots=True)
class _Piece:
    """What stands between two semicolons: its words and signs outside of parentheses, and whether psql is meant."""

    line: int = 0
    tokens: list[str] = field(default_factory=list)
    psql: bool = False
    bodies: list[tuple[int, str]] = field(default_factory=list)
    """Texts in quotes of a DO, each with its line."""


@dataclass(slots=True)
class _Statement:
    text: str
    pieces: list[_Piece]
    """One, or several where it holds semicolons: in parentheses, and in a body that begins with `begin atomic`."""


def statements(text: str) -> list[str]:
    """The statements of a script as psql would split it, without their semicolons and the comments between them."""
    return [statement.text for statement in _split(text)]


def refused(text: str) -> Refused | None:
    """The first thing in a script that would end or begin a transaction, or that cannot be sent to a server."""
    for piece in (piece for statement in _split(text) for piece in statement.pieces):
        if piece.psql:
            return Refused(piece.line, "\\", _PSQL)
        if reason := _reason(piece.tokens):
            return Refused(piece.line, _shown(piece.tokens), reason)
        if piece.tokens[0] == "do" and (found := _outside(piece)):
            return found
    if "\0" in text:
        return Refused(text.count("\n", 0, text.index("\0")) + 1, "a zero byte", _ZERO)
    return None


def _reason(tokens: list[str]) -> str | None:
    first, following = tokens[0], tokens[1:]
    if first in _ENDS or tuple(tokens[:2]) in _TWO_WORDS:
        return _TRANSACTION
    if first in ("set", "reset"):
        if following[:4] == ["session", "characteristics", "as", "transaction"]:
            return _TRANSACTION
        if following[:1] in (["local"], ["session"]):
            following = following[1:]
        if following and _SETTINGS.fullmatch(following[0]):
            return _TRANSACTION
    return _copied(following) if first == "copy" else None


def _copied(tokens: list[str]) -> str | None:
    """Why a COPY is refused: what stands behind its first FROM or TO outside of parentheses."""
    for place, word in enumerate(tokens):
        if word in ("from", "to"):
            behind = tokens[place + 1 : place + 3]
            if behind[:1] and behind[0] in _CLIENT:
                return _COPY
            return (
                _OUTSIDE if (behind[:1] and behind[0] in _FILE) or behind == ["u", "&"] else None
            )  # U&'…' is three tokens
    return None


def _outside(piece: _Piece) -> Refused | None:
    """A COPY in the body of a DO that acts outside of the transaction; one that is put together there is not seen."""
    for line, body in piece.bodies:
        depth, began = 0, 0
        statement: list[str] = []
        for word, start, _ in [*_tokens(body), (";", len(body), len(body))]:
            if (word in _SPLITS and depth <= 0) or word == ";":
                if statement[:1] == ["copy"] and _copied(statement[1:]) == _OUTSIDE:
                    return Refused(line + body.count("\n", 0, began), _shown(statement), _OUTSIDE)
                statement = []
                continue
            depth += {"(": 1, ")": -1}.get(word, 0)
            if depth <= 0 or not statement:
                began = began if statement else start
                statement.append(word)
    return None


def _shown(tokens: list[str]) -> str:
    """As many words as it takes to find the place."""
    first = tokens[0]
    many = {"set": 3, "reset": 2, "start": 2, "prepare": 2, "copy": 2}.get(first, 2 if "prepared" in tokens[1:2] else 1)
    return " ".join(tokens[:many])


def _split(text: str) -> Iterator[_Statement]:
    line, counted = 1, 0  # lines are counted on from the last place
    begin = end = 0
    depth = 0
    body = 0  # 1 within `begin atomic … end`, one more for each `case … end` in it
    tokens: list[str] = []  # of the statement, outside of parentheses
    pieces: list[_Piece] = [_Piece()]
    for word, start, stop in _tokens(text):
        if word == ";":
            if depth <= 0 and not body:
                if any(piece.tokens for piece in pieces):
                    yield _Statement(text[begin:end], [piece for piece in pieces if piece.tokens])
                depth, tokens, pieces = 0, [], [_Piece()]
            else:
                pieces.append(_Piece())
            continue
        piece = pieces[-1]
        if not any(piece.tokens for piece in pieces):
            begin = start
        end = stop
        if not piece.tokens:
            line += text.count("\n", counted, start)
            counted, piece.line = start, line
        piece.psql = piece.psql or word == "\\"
        if word in ("<dollar>", "<string>") and tokens[:1] == ["do"]:
            piece.bodies.append((text.count("\n", 0, start) + 1, _unquoted(text[start:stop])))
        if word in ("(", "["):
            depth += 1
        elif word in (")", "]"):
            depth -= 1
        elif depth <= 0 and _is_routine(tokens):
            if body:
                body += {"case": 1, "end": -1}.get(word, 0)
                if not body:  # the `end` of the body is none of a transaction
                    word = "<end>"
            elif word == "atomic" and tokens[-1] == "begin":
                body = 1
                pieces.append(_Piece())
        if depth <= 0 or not piece.tokens:
            tokens.append(word)
            piece.tokens.append(word)
    if any(piece.tokens for piece in pieces):
        yield _Statement(text[begin:end], [piece for piece in pieces if piece.tokens])


def _unquoted(text: str) -> str:
    """What stands between the quotes; escapes of E'…' stay as they are, which is near enough to find a word."""
    if text.startswith("$"):
        edge = text.index("$", 1) + 1
        return text[edge:-edge]
    return text[text.index("'") + 1 : -1].replace("''", "'")


def _is_routine(tokens: list[str]) -> bool:
    at = 3 if tokens[1:3] == ["or", "replace"] else 1
    return tokens[:1] == ["create"] and tokens[at : at + 1] in (["function"], ["procedure"])


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Words and signs in lower case, `<string>` and so on for the rest; comments are left out.

    What is not closed goes to the end, where the server will refuse it.
    """
    position = 0
    while found := _TOKEN.match(text, position):
        kind, start, position = str(found.lastgroup), position, found.end()
        if kind == "comment":
            depth = 1
            while depth:
                edge = _COMMENT_EDGE.search(text, position)
                depth = 0 if edge is None else depth + (1 if edge[0] == "/*" else -1)
                position = len(text) if edge is None else edge.end()
        elif kind == "dollar":
            end = text.find(found[0], position)
            position = len(text) if end < 0 else end + len(found[0])
        if kind in ("word", "sign"):
            yield found[0].lower(), start, position
        elif kind not in ("blank", "comment"):
            yield f"<{kind}>", start, position
