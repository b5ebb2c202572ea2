"""How tiles and capabilities documents are asked for, over `mapper.transport`."""

from urllib.parse import urlsplit

from mapper.catalog.tilestore import limiter_of
from mapper.errors import ReadError
from mapper.transport.address import unsigned
from mapper.transport.traffic import counting
from mapper.transport.tries import AbsentError, PassingError, RefusedError, persist
from mapper.transport.web import Question, ask
from mapper.transport.whole import check_whole

_MOST_BYTES = 64 * 2**20


def fetch_tile(href: str) -> bytes:
    """Content of an address; empty where there is none (404, 410, 204).

    A tile service is never asked faster than agreed (`limiter_of`): every try waits for the
    limiter after its turn at the host, so that no burst follows a pause that the host asked for.
    An empty answer that is none of these three is an error, because it would pass for ground
    without imagery; so is one of which nothing tells whether it is whole.

    Raises: ReadError where the service refuses, or does not answer well however often it is asked.
    """
    limiter, seen = limiter_of(urlsplit(href).netloc), counting()
    question = Question(href=href, most=_MOST_BYTES, longest=lambda: _too_long(href))

    def attempt() -> bytes:
        limiter.wait()
        answer = ask(question, seen)
        if answer.status == 204:
            return b""
        check_whole(answer, href)
        if not answer.body:
            raise PassingError("its host sends an empty body")
        return answer.body

    try:
        return persist(href, attempt, seen)
    except AbsentError:
        return b""
    except RefusedError as reason:
        raise ReadError(
            f"{unsigned(href)} is refused ({reason}); check the key, if the service wants one, "
            "and that the operator permits what is asked"
        ) from None


def _too_long(href: str) -> str:
    return f"{unsigned(href)} has more than {_MOST_BYTES} bytes; it is no tile service's"
