"""The text of a profile or rule file as plain data that knows its lines.

Only what these files need of YAML is taken: mappings, lists, texts, numbers, truth values. Unquoted words mean what
they say (`off` is a text, `22:00` is no number of seconds, `0x10` no sixteen); keys are always texts. Anchors, aliases
and tags are refused: a file that can be read top to bottom needs none, and an alias is how a small file becomes a huge
one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import yaml
from msgspec import Struct

SIZE_LIMIT: Final = 256 * 1024
"""Characters. The longest file, the categories, has a tenth of it."""

DEPTH_LIMIT: Final = 40

_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NOTHINGS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(r"[-+]?((0|[1-9][0-9]*)?\.[0-9]+|(0|[1-9][0-9]*)\.?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan")
_FOREIGN: Final = re.compile("[\ud800-\udfff]")
"""Surrogates: what a reader makes of bytes that are no UTF-8 (`surrogateescape`)."""

_DIGITS_LIMIT: Final = 300

# libyaml where PyYAML has it: ten times as fast, and its parser does not recurse.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]
"""Where something stands in a file: keys of mappings and indexes of lists, from the top."""


class Problem(Struct, frozen=True):
    """One thing wrong with a file: where, what, and what to write instead. ``code`` is stable."""

    file: str
    line: int
    code: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}; mend: {self.mend}"


class Node(Struct):
    """One value of the file with its line (from 1). Exactly one of ``pairs``, ``items`` and ``text`` is not None."""

    line: int
    pairs: dict[str, tuple[int, Node]] | None = None
    items: list[Node] | None = None
    text: str | None = None
    is_plain: bool = False

    def plain(self) -> object:
        """The value as dict, list, str, int, float, bool or None."""
        if self.pairs is not None:
            return {key: node.plain() for key, (_, node) in self.pairs.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        text = self.text or ""
        return _resolve(text) if self.is_plain else text


class Document(Struct, frozen=True):
    """A file that could be read: its data, and the line of every part of it."""

    file: str
    data: object
    root: Node

    def line(self, path: Iterable[str | int] = ()) -> int:
        """The line of the part at ``path``, or of the nearest part above it that is there.

        Steps that the file does not have are passed over, so that a path made of the parsed tree finds its place."""
        node, line = self.root, self.root.line
        for step in path:
            if node.pairs is not None and isinstance(step, str) and step in node.pairs:
                line, node = node.pairs[step]
            elif node.items is not None and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
                line = node.line
        return line

    def problem(self, path: Iterable[str | int], code: str, what: str, mend: str) -> Problem:
        return Problem(self.file, self.line(path), code, what, mend)


class _Refused(Exception):
    def __init__(self, line: int, code: str, what: str, mend: str) -> None:
        super().__init__(what)
        self.line, self.code, self.what, self.mend = line, code, what, mend


def read_document(file: str, text: str) -> tuple[Document | None, list[Problem]]:
    """Reads one file. A repeated key is a problem, and the first one counts; what is no YAML at all gives None."""
    repeats: list[Problem] = []
    if len(text) > SIZE_LIMIT:
        what = f"the file has {len(text)} characters; at most {SIZE_LIMIT} are read"
        return None, [Problem(file, 1, "too-large", what, "split it into one file per profile or rule")]
    foreign = _FOREIGN.search(text)
    if foreign is not None:
        what = "the file is not UTF-8 (or holds half a character) here"
        return None, [Problem(file, text.count("\n", 0, foreign.start()) + 1, "not-utf8", what, "save it as UTF-8")]
    try:
        root = _build(file, text, repeats)
    except _Refused as error:
        return None, [Problem(file, error.line, error.code, error.what, error.mend)]
    except yaml.YAMLError as error:
        return None, [_explain_yaml(file, text, error)]
    if root is None:
        return None, [Problem(file, 1, "empty-file", "the file is empty", "write its content, or delete it")]
    return Document(file, root.plain(), root), repeats


def _build(file: str, text: str, repeats: list[Problem]) -> Node | None:
    events = iter(yaml.parse(text, Loader=_LOADER))
    root: Node | None = None
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if root is not None:
                raise _Refused(
                    _line_of(event),
                    "two-documents",
                    "a second document begins here",
                    "remove the line ---, or put it into a file of its own",
                )
            root = _take(file, event, events, 0, repeats)
    return root


def _take(file: str, event: yaml.Event, events: Iterator[yaml.Event], depth: int, repeats: list[Problem]) -> Node:
    line = _line_of(event)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _Refused(
            line, "alias", "anchors (&) and aliases (*) are not used here", "write the value out, or quote it"
        )
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise _Refused(line, "tag", f"the tag {tag} is not used here", "leave it out, or quote the text")
    if depth > DEPTH_LIMIT:
        raise _Refused(line, "too-deep", f"nested more than {DEPTH_LIMIT} levels deep", "write it flatter")
    if isinstance(event, yaml.ScalarEvent):
        return Node(line, text=event.value, is_plain=event.implicit[0])
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_take(file, inner, events, depth + 1, repeats))
        return Node(line, items=items)
    pairs: dict[str, tuple[int, Node]] = {}
    while not isinstance(inner := next(events), yaml.MappingEndEvent):
        key = _take(file, inner, events, depth + 1, repeats)
        value = _take(file, next(events), events, depth + 1, repeats)
        if key.text is None:
            raise _Refused(key.line, "wrong-key", "a key is a mapping or a list", "write a plain word before the colon")
        if key.text in pairs:
            first = pairs[key.text][0]
            what = f"the key {key.text!r} stands here again; it is already in line {first}"
            repeats.append(Problem(file, key.line, "duplicate-key", what, "keep one of them"))
            continue
        pairs[key.text] = (key.line, value)
    return Node(line, pairs=pairs)


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _resolve(text: str) -> object:
    if text in _NOTHINGS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if len(text) <= _DIGITS_LIMIT:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _explain_yaml(file: str, text: str, error: yaml.YAMLError) -> Problem:
    line, what = 1, " ".join(str(error).split())
    mend = "check quotes, brackets and indentation here and in the line before"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "tab" in what or "\t" in _text_of(text, line):
            mend = "indent with spaces, never with tabs"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        what = f"the character {error.character!r} is not allowed ({error.reason})"
        mend = "remove it, and save the file as UTF-8"
    return Problem(file, line, "broken-yaml", f"this is no YAML: {what}", mend)


def _text_of(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1] if 0 < line <= len(lines) else ""
