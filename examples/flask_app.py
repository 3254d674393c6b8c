"""A Flask app, as it is, in a Lambda function (pip install flask): curl -N http://127.0.0.1:8080/count/5"""

import time
from collections.abc import Iterator

from flask import Flask, Response, request

from dialback import wsgi_handler

app = Flask(__name__)


@app.get("/count/<int:limit>")
def count(limit: int) -> Response:
    def lines() -> Iterator[str]:
        for number in range(1, limit + 1):
            yield f"{number}\n"
            time.sleep(0.2)

    return Response(lines(), content_type="text/plain")


@app.post("/size")
def size() -> dict[str, int]:
    total = 0
    while piece := request.stream.read(64 << 10):  # any size: never all of it is in memory
        total += len(piece)
    return {"bytes": total}


handler = wsgi_handler(app, concurrency=8)  # eight threads: eight requests at once in one environment
