"""The echo service and a gateway in front of it, as servers in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from footlights.gateway import Gateway, Options
from tests.conformance.echo import Echo, service
from tests.gateway.handlers import upstream_to


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers on 127.0.0.1."""

    port: int
    echo: Echo
    gateway: Gateway
    loop: asyncio.AbstractEventLoop

    def stop(self) -> None:
        """Have the gateway stop."""
        self.loop.call_soon_threadsafe(self.gateway.stop)


@contextmanager
def serving(options: Options | None = None, *, local: bool = False) -> Iterator[Running]:
    """Run both until the end of the block, with a socket between them or none."""
    ready = threading.Event()
    found: list[Running] = []
    failures: list[BaseException] = []
    stop: list[tuple[asyncio.AbstractEventLoop, uvicorn.Server]] = []

    async def main() -> None:
        echo = Echo()
        async with upstream_to("local" if local else "grpc", service(), echo.functions()) as upstream:
            gateway = Gateway(upstream, [service()], options)
            config = uvicorn.Config(
                gateway, host="127.0.0.1", port=0, log_level="critical", proxy_headers=False, ws="none", lifespan="off"
            )
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started and not task.done():  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            found.append(Running(port, echo, gateway, asyncio.get_running_loop()))
            stop.append((asyncio.get_running_loop(), server))
            ready.set()
            await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # handed to the test that waits
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="gateway under test")
    thread.start()
    assert ready.wait(20), "the gateway did not start in 20 s"
    if failures:
        raise failures[0]
    try:
        yield found[0]
    finally:
        loop, server = stop[0]
        loop.call_soon_threadsafe(setattr, server, "force_exit", True)
        loop.call_soon_threadsafe(setattr, server, "should_exit", True)
        thread.join(20)
        assert not thread.is_alive(), "the gateway did not stop in 20 s"
