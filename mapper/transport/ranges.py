"""Parts of a file over HTTP, each answer held against what was asked and what was seen before."""

import re

from mapper.errors import ReadError
from mapper.transport.address import unsigned
from mapper.transport.memory import Identity
from mapper.transport.policy import current_policy
from mapper.transport.tokens import ask_signed
from mapper.transport.traffic import Traffic
from mapper.transport.tries import PassingError
from mapper.transport.web import Answer, Question, ask

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\s*\Z")
_EMPTY_RANGE = re.compile(r"bytes \*/0\s*\Z")


class WebFile:
    """A file at an http or https address (range requests: RFC 9110, section 14)."""

    def __init__(self, href: str) -> None:
        """No request is made."""
        self._href = href
        self._shown = unsigned(href)

    def first(self, seen: Traffic) -> tuple[Identity, bytes]:
        """The first bytes of the file, and what tells this content from another.

        Returns: the whole file where it is short, also from a server that does no ranges.

        Raises: ReadError.
        """
        policy = current_policy()
        most = max(policy.first_bytes, policy.whole_bytes)

        def attempt(address: str) -> tuple[Identity, bytes]:
            answer = self._ask(address, 0, policy.first_bytes, most, seen)
            if answer.status == 200:
                return _identity(answer, len(answer.body)), answer.body
            size = self._checked(answer, 0, policy.first_bytes)
            return _identity(answer, size), answer.body

        identity, body = ask_signed(self._href, attempt, seen)
        seen.memory.check_identity(self._shown, identity)
        seen.count_range(self._shown, 0, len(body))
        return identity, body

    def piece(self, start: int, end: int, seen: Traffic) -> bytes:
        """Bytes `start` to `end` (not in it); the file has them.

        Raises: ReadError, also where the file is another than at its first read.
        """

        def attempt(address: str) -> bytes:
            answer = self._ask(address, start, end, end - start, seen)
            if answer.status == 200:
                raise ReadError(self._no_ranges())
            size = self._checked(answer, start, end)
            seen.memory.check_identity(self._shown, _identity(answer, size))
            if len(answer.body) != end - start:
                raise PassingError(f"its host sends {len(answer.body)} of {end - start} bytes")
            return answer.body

        body = ask_signed(self._href, attempt, seen)
        seen.count_range(self._shown, start, end)
        return body

    def _ask(self, address: str, start: int, end: int, most: int, seen: Traffic) -> Answer:
        """An answer of status 200 (no ranges, and not longer than `most`) or 206."""
        question = Question(
            href=address,
            headers={"Range": f"bytes={start}-{end - 1}"},
            most=most,
            longest=self._no_ranges,
            allowed=frozenset({416}),
        )
        answer = ask(question, seen)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise ReadError(f"asset {self._shown} is sent {encoding} encoded; mend its server")
        if answer.status == 416:
            raise ReadError(self._out_of_range(answer, start))
        if answer.status not in {200, 206}:
            raise ReadError(f"asset {self._shown} answers {answer.status}; mend the catalog")
        return answer

    def _checked(self, answer: Answer, start: int, end: int) -> int:
        """The file's size, from an answer whose range is the one that was asked for."""
        text = answer.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.match(text)
        if found is None:
            raise PassingError(f"its host sends a range without saying which ({text!r})")
        first, last, size = map(int, found.groups())
        if first != start or last + 1 != min(end, size) or len(answer.body) != last + 1 - first:
            raise PassingError(
                f"its host sends bytes {first} to {last} of {size}, {len(answer.body)} in all, "
                f"where {start} to {end - 1} were asked for"
            )
        return size

    def _no_ranges(self) -> str:
        return (
            f"asset {self._shown} is on a server that does not send parts of files; copy it, or "
            "serve it by one that does"
        )

    def _out_of_range(self, answer: Answer, start: int) -> str:
        if _EMPTY_RANGE.match(answer.headers.get("Content-Range", "")):
            return f"asset {self._shown} is empty; mend the catalog"
        return f"asset {self._shown} has no byte {start} any more; run again with --refresh"


def _identity(answer: Answer, size: int) -> Identity:
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return Identity(size=size, tag=tag)
