"""One HTTP request and what its answer means; no second try is made here.

Connections are pooled per host and proxy. Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
and NO_PROXY, certificates from REQUESTS_CA_BUNDLE, SSL_CERT_FILE or certifi.
"""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urldefrag, urlsplit

import certifi
import urllib3
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, ProxySchemeUnknown
from urllib3.util import Retry, Timeout, make_headers

from mapper.errors import ReadError
from mapper.transport.address import redact, unsigned
from mapper.transport.policy import NetworkPolicy, current_policy
from mapper.transport.traffic import Traffic
from mapper.transport.tries import AbsentError, PassingError, RefusedError, retry_after

_CHUNK = 256 * 1024
_REDIRECTS = 5
_SECRET_HEADERS = Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT | {"Ocp-Apim-Subscription-Key"}
"""Not sent on to another host."""
_PROXY_NAMES = tuple(
    word
    for name in ("http", "https", "all", "no")
    for word in (f"{name}_proxy", f"{name}_PROXY".upper())
)
_MAY_PASS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response that is whole: its body is as long as its Content-Length says."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a host."""

    href: str
    """As signed as it has to be."""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    most: int | None = None
    """Bytes of body above which the answer is refused."""
    longest: Callable[[], str] | None = None
    """What to say of a longer body of status 200, which no further try would make shorter."""
    allowed: frozenset[int] = frozenset()
    """Statuses above 399 that are an answer and no error."""


def ask(question: Question, seen: Traffic, sink: Callable[[bytes], object] | None = None) -> Answer:
    """Send one request and take its whole body, in parts to `sink` where there is one.

    An OSError of the sink would pass for one of the connection: it has to raise something else.

    Raises: PassingError, RefusedError, AbsentError, ReadError as the answer is.
    """
    policy = current_policy()
    seen.count_request()
    try:
        response = _send(question, policy)
        try:
            _check_status(question, response)
            body = _body(question, response, seen, sink, policy.deadline_s)
        except BaseException:
            response.close()
            raise
    except (HTTPError, OSError) as reason:
        raise _fault(question.href, reason) from None
    return Answer(status=response.status, headers=response.headers, body=body)


def _send(question: Question, policy: NetworkPolicy) -> urllib3.BaseHTTPResponse:
    href = urldefrag(question.href).url
    headers = {"Accept-Encoding": "identity", "User-Agent": "mapper", **question.headers}
    parts = urlsplit(href)
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers |= make_headers(basic_auth=words)
        href = href.replace(parts.netloc, parts.netloc.rsplit("@", 1)[-1], 1)
    return _pool(_proxy(href), _certificates(), policy.per_host).request(
        question.method,
        href,
        headers=headers,
        timeout=Timeout(connect=policy.connect_s, read=policy.read_s),
        retries=Retry(
            total=None,
            connect=0,
            read=0,
            status=0,
            other=0,
            redirect=_REDIRECTS,
            remove_headers_on_redirect=_SECRET_HEADERS,
        ),
        preload_content=False,
        decode_content=False,
    )


def _proxy(href: str) -> str:
    parts = urlsplit(href)
    values = tuple(map(os.environ.get, _PROXY_NAMES))
    return _proxy_for(f"{parts.scheme}://{parts.netloc}", values)


@lru_cache(maxsize=256)
def _proxy_for(host: str, values: tuple[str | None, ...]) -> str:
    """`values` are what the answer depends on: looking them up anew takes half a millisecond."""
    return select_proxy(host, get_environ_proxies(host)) or ""


def _certificates() -> str:
    named = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    return next((name for name in named if name), certifi.where())


@lru_cache(maxsize=32)
def _pool(proxy: str, certificates: str, per_host: int) -> urllib3.PoolManager:
    options = {"maxsize": per_host, "num_pools": 64, "ca_certs": certificates}
    if not proxy:
        return urllib3.PoolManager(**options)  # type: ignore[arg-type]
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(proxy)
    headers = {}
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = make_headers(proxy_basic_auth=words)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)  # type: ignore[arg-type]


os.register_at_fork(after_in_child=_pool.cache_clear)


def _check_status(question: Question, response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status < 400 or status in question.allowed:
        return
    shown = unsigned(question.href)
    if status in {404, 410}:
        raise AbsentError(
            f"asset {shown} is not there ({status}); mend the catalog or leave the scene out "
            "(`failure_budget`)"
        )
    if status in {401, 403}:
        raise RefusedError(str(status))
    if status in _MAY_PASS:
        after = retry_after(response.headers.get("Retry-After"))
        asked = status == 429 or after is not None
        raise PassingError(f"its host answers {status}", after=after, hosts_fault=not asked)
    raise ReadError(
        f"asset {shown} answers {status}; mend the catalog or leave the scene out "
        "(`failure_budget`)"
    )


def _body(
    question: Question,
    response: urllib3.BaseHTTPResponse,
    seen: Traffic,
    sink: Callable[[bytes], object] | None,
    longest: float,
) -> bytes:
    """The body, refused as soon as it is longer than asked for or takes too long."""
    end = time.monotonic() + longest if sink is None else float("inf")
    promised = response.headers.get("Content-Length", "")
    if question.most is not None and promised.isdigit() and int(promised) > question.most:
        raise _too_long(question, response.status)
    parts, size = [], 0
    for part in response.stream(_CHUNK, decode_content=False):
        size += len(part)
        seen.count_body(len(part))
        if question.most is not None and size > question.most:
            raise _too_long(question, response.status)
        if time.monotonic() > end:
            raise PassingError("its host sends too slowly")
        if sink is None:
            parts.append(part)
        else:
            sink(part)
    return b"".join(parts)


def _too_long(question: Question, status: int) -> Exception:
    if status == 200 and question.longest is not None:
        return ReadError(question.longest())
    return PassingError(f"its host sends more than the {question.most} bytes asked for")


def _fault(href: str, reason: Exception) -> Exception:
    """What a broken connection means: mostly that another one may do better."""
    inner = reason.reason if isinstance(reason, MaxRetryError) and reason.reason else reason
    text = redact(str(inner))[:300]
    cause: BaseException | None = inner
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ReadError(
                f"asset {unsigned(href)} cannot be reached: its host's certificate is not "
                f"trusted ({cause.verify_message}); name your own with REQUESTS_CA_BUNDLE"
            )
        cause = cause.__cause__ or cause.__context__ or _argument(cause)
    if isinstance(inner, (LocationValueError, ProxySchemeUnknown)):
        return ReadError(f"asset {unsigned(href)} cannot be reached: {text}; mend the address")
    return PassingError(f"the connection failed ({text})")


def _argument(reason: BaseException) -> BaseException | None:
    """urllib3 hands the cause of an SSLError on as its argument."""
    first = reason.args[0] if reason.args else None
    return first if isinstance(first, BaseException) else None
