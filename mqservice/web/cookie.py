"""The cookie of a session: name of the token, end of the session, signature. Nobody has to keep it.

Browsers need it, since EventSource cannot send a header. The key is shared by all processes, through Redis. The hash of
the secret is signed as well, so that a session ends with its token.
"""

import base64
import dataclasses
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final

from mqservice.web.access import Caller

COOKIE: Final = "mqservice"
LIFE_S: Final = 12 * 3600


def seal(who: Caller, key: bytes, expires_s: int) -> str:
    """Return the cookie's value for the owner of a token."""
    claim = f"{who.name}.{expires_s}"
    return f"{claim}.{_signature(claim, who.digest, key).decode()}"


def opened_by(value: str, callers: Mapping[str, Caller], key: bytes) -> Caller | None:
    """Return whose session a cookie's value is; None when it has ended, is forged, or its token is gone."""
    claim, _, signature = value.rpartition(".")
    name, _, expires = claim.rpartition(".")
    who = callers.get(name)
    if who is None or not key:
        return None
    if not hmac.compare_digest(_signature(claim, who.digest, key), signature.encode("utf-8", "replace")):
        return None
    return dataclasses.replace(who, expires_s=int(expires)) if int(expires) > time.time() else None


def _signature(claim: str, digest: bytes, key: bytes) -> bytes:
    mac = hmac.digest(key, claim.encode("utf-8", "replace") + b"\n" + digest, hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=")
