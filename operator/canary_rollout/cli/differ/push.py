"""Hands a result to a Pushgateway."""

from typing import Final
from urllib.parse import quote

import requests

from canary_rollout.cli.errors import CliError, Exit

TIMEOUT: Final = 10.0


def push(url: str, text: str, where: tuple[str, str, str]) -> None:
    """Replace the group of this rollout (job ``canary-diff``) at a Pushgateway by ``text``.

    Raises:
        CliError: it did not take it.
    """
    namespace, name, _ = where
    group = "".join(
        f"/{key}/{quote(value, safe='')}"
        for key, value in (("rollout_namespace", namespace), ("rollout", name))
        if value
    )
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.put(
                f"{url.rstrip('/')}/metrics/job/canary-diff{group}",
                data=text.encode(),
                headers={"Content-Type": "text/plain; version=0.0.4"},
                timeout=TIMEOUT,
                allow_redirects=False,
            )
    except requests.RequestException as error:
        raise CliError(
            f"the Pushgateway {url} did not take the result ({type(error).__name__})", Exit.UNREACHABLE
        ) from error
    if response.status_code not in {200, 202}:
        words = " ".join(response.text.split())[:200]
        raise CliError(
            f"the Pushgateway {url} refused the result: HTTP {response.status_code} {words}", Exit.UNREACHABLE
        )
