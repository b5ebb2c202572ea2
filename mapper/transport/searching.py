"""The HTTP session of catalog searches, whose client brings its own requests."""

from functools import lru_cache

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from mapper.transport.policy import current_policy


def retries() -> Retry:
    """Five tries, waiting longer each time or as long as the server asks, within the policy."""
    return Retry(
        total=5,
        backoff_factor=0.2,
        backoff_jitter=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        respect_retry_after_header=True,
        retry_after_max=int(current_policy().retry_after_max_s),
    )


@lru_cache(maxsize=1)
def session() -> requests.Session:
    """An HTTP session that retries."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retries()))
    return made
