"""Signatures for Function URLs with AuthType AWS_IAM (AWS: "Signature Version 4"; the signing itself is botocore's)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

#: `<id>.lambda-url.<region>.on.aws` (AWS: "Creating and managing Lambda function URLs").
_AWS_HOST: Final = re.compile(r"[a-z0-9]+\.lambda-url\.([a-z0-9-]+)\.on\.aws")


class Signer:
    """Signs for one region with the credentials that boto3 finds, renewed as they expire. Ends with its invoker."""

    def __init__(self, region: str, credentials: Credentials) -> None:
        self._region = region
        self._credentials = credentials

    @classmethod
    def for_url(cls, url: str) -> Signer | None:
        """The signer of AWS's own Function URLs; None for every other address, and where there are no credentials.

        A signature does no harm where AuthType is NONE. Looking for credentials may take a second: call it in a thread.
        """
        match = _AWS_HOST.fullmatch(urlsplit(url).hostname or "")
        if match is None:
            return None
        credentials = boto3.Session().get_credentials()
        return None if credentials is None else cls(match[1], credentials)

    async def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """The headers of a POST, with those of its signature."""
        # Renewing asks a metadata service over HTTP, and blocks.
        frozen = await asyncio.to_thread(self._credentials.get_frozen_credentials)
        request = AWSRequest("POST", url, headers=dict(headers), data=body)
        SigV4Auth(frozen, "lambda", self._region).add_auth(request)
        return dict(request.headers.items())
