"""What HTTP itself costs: a Falcon handler that parses the same body and does nothing, served as Fairlead is."""

import sys
from typing import Any

import falcon.asgi
import msgspec
import uvicorn
import uvloop


class _Nothing:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        msgspec.json.decode(await req.stream.read())
        resp.status = 202
        resp.content_type = "text/plain; charset=utf-8"
        resp.set_header("X-Message-Id", "AZoAAAAAcACAAAAAAAAAAA")


def main() -> None:
    """Serve on the port that is named until ended."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/v3/mail/send", _Nothing())
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
