"""A Django site, as ASGI, in a Lambda function (pip install django): curl -N http://127.0.0.1:8080/count/5

In a project of your own the last line is all that `asgi.py` needs more; `get_wsgi_application` goes into
`wsgi_handler` likewise.
"""

import asyncio
from collections.abc import AsyncIterator

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from dialback import asgi_handler


async def count(request: HttpRequest, limit: int) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(1, limit + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.2)

    return StreamingHttpResponse(lines(), content_type="text/plain")


def who(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"agent": request.headers.get("user-agent", ""), "path": request.get_full_path()})


settings.configure(ROOT_URLCONF=(path("count/<int:limit>", count), path("who", who)), ALLOWED_HOSTS=["*"])
django.setup()

handler = asgi_handler(get_asgi_application())
