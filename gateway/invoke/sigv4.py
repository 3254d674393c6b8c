"""Signatures for Function URLs with AuthType AWS_IAM (AWS: "Signature Version 4"; the signing itself is botocore's)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from botocore.credentials import Credentials, RefreshableCredentials

log = structlog.get_logger("dialback.invoke")

#: `<id>.lambda-url.<region>.on.aws` (AWS: "Creating and managing Lambda function URLs").
_AWS_HOST: Final = re.compile(r"[a-z0-9]+\.lambda-url\.([a-z0-9-]+)\.on\.aws")
LOOK_AGAIN: Final = 60.0  # seconds between two searches for credentials that were not there


class SigningFailed(Exception):
    """There ought to be credentials, and they cannot be had; the text says why, for the log."""


class Signer:
    """Signs for one region with the credentials that boto3 finds, renewed as they expire. Ends with its invoker.

    Without credentials nothing is signed, which is right where AuthType is NONE; a signature does no harm there.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        self._credentials: Credentials | None = None
        self._renewed: type[RefreshableCredentials] | tuple[()] = ()  # botocore is imported where it is needed
        self._look_at = 0.0

    @classmethod
    def for_url(cls, url: str) -> Signer | None:
        """The signer of one of AWS's own Function URLs; None for every other address."""
        match = _AWS_HOST.fullmatch(urlsplit(url).hostname or "")
        return None if match is None else cls(match[1])

    async def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """The headers of a POST, with those of its signature where there are credentials. Raises `SigningFailed`."""
        if self._is_at_hand:
            return self._try_to_sign(url, dict(headers), body)
        return await asyncio.to_thread(self._try_to_sign, url, dict(headers), body)

    @property
    def _is_at_hand(self) -> bool:
        """Nobody need be asked. Looking and renewing may ask a metadata service over HTTP, and block."""
        credentials = self._credentials
        if credentials is None:
            return time.monotonic() < self._look_at
        return not (isinstance(credentials, self._renewed) and credentials.refresh_needed())

    def _try_to_sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._sign(url, headers, body)
        except (BotoCoreError, ClientError) as error:  # the second: STS refuses
            raise SigningFailed(f"no AWS credentials: {type(error).__name__}: {error}") from None

    def _sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        credentials = self._find()
        if credentials is None:
            return headers
        request = AWSRequest("POST", url, headers=headers, data=body)
        SigV4Auth(credentials.get_frozen_credentials(), "lambda", self.region).add_auth(request)
        return dict(request.headers.items())

    def _find(self) -> Credentials | None:
        if self._credentials is None and time.monotonic() >= self._look_at:
            import boto3  # a second of imports that a gateway before a local Lambda does not need
            from botocore.credentials import RefreshableCredentials

            self._renewed = RefreshableCredentials
            self._credentials = boto3.Session().get_credentials()
            self._look_at = time.monotonic() + LOOK_AGAIN
            if self._credentials is None:
                log.warning("invocations.unsigned", region=self.region, reason="no AWS credentials were found")
        return self._credentials
