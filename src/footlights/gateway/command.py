"""``footlights gateway``, also ``python -m footlights.gateway``: the gateway in front of any gRPC server.

It also serves ``/healthz``, unless the API has its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import uvicorn

from footlights import __version__
from footlights.gateway import docs, health
from footlights.gateway.app import Gateway
from footlights.gateway.openapi import Info, document
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import BindingError
from footlights.gateway.routing.descriptors import DescriptorError, from_server, from_set
from footlights.gateway.site import Site
from footlights.gateway.upstream.grpc import GrpcUpstream
from footlights.http.server import ConnectionLimits, Connections

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from google.protobuf.descriptor import ServiceDescriptor
    from starlette.routing import Route


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted. Return 0, or 2 where arguments, descriptors or upstream are wrong."""
    options = parser().parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except (BindingError, DescriptorError, OSError) as error:
        print(f"footlights gateway: {error}", file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        print(f"footlights gateway: {options.upstream}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="footlights gateway", description="REST in front of any gRPC server whose protos have google.api.http."
    )
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument("--descriptor-set", type=Path, metavar="FILE", help="a FileDescriptorSet (--include_imports)")
    source.add_argument("--reflection", action="store_true", help="get the descriptors from the server")
    found.add_argument("--upstream", required=True, metavar="HOST:PORT", help="the gRPC server")
    found.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="default 127.0.0.1:8080")
    found.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME",
        help="full name of a service; repeat for several; default: all",
    )
    found.add_argument("--use-proto-names", action="store_true", help="JSON with proto field names")
    found.add_argument("--allow-delete-body", action="store_true", help="serve rules that give DELETE a body")
    found.add_argument("--strict", action="store_true", help="refuse clients' mistakes, with error details")
    found.add_argument("--docs", action="store_true", help="also serve /openapi.json and /docs")
    found.add_argument(
        "--cors-origin", action="append", default=[], metavar="ORIGIN", help="origin whose pages may call; '*' for all"
    )
    found.add_argument(
        "--forward-header", action="append", default=[], metavar="NAME", help="pass this request header on as metadata"
    )
    found.add_argument(
        "--expose-header",
        action="append",
        default=[],
        metavar="NAME",
        help="pass this metadata on as a response header",
    )
    found.add_argument("--timeout", type=float, metavar="SECONDS", help="deadline of unary calls without Grpc-Timeout")
    found.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve HTTPS: certificate chain, PEM")
    found.add_argument("--tls-key", type=Path, metavar="FILE", help="serve HTTPS: private key, PEM")
    found.add_argument("--upstream-tls", action="store_true", help="use TLS to the gRPC server")
    found.add_argument("--upstream-ca", type=Path, metavar="FILE", help="certificate authorities to trust for it, PEM")
    return found


def settings(arguments: argparse.Namespace) -> Options:
    """Return the gateway's options."""
    return Options(
        strict=arguments.strict,
        use_proto_names=arguments.use_proto_names,
        allow_delete_body=arguments.allow_delete_body,
        cors_origins=tuple(arguments.cors_origin),
        forward_headers=tuple(name.lower() for name in arguments.forward_header),
        expose_headers=tuple(name.lower() for name in arguments.expose_header),
        default_timeout_s=arguments.timeout,
    )


async def _run(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    if not port.isdigit():
        raise DescriptorError(f"--listen must be HOST:PORT (got {arguments.listen!r})")
    if bool(arguments.tls_certificate) != bool(arguments.tls_key):
        raise DescriptorError("give both --tls-certificate and --tls-key, or neither")
    async with _channel(arguments) as channel:
        data = arguments.descriptor_set.read_bytes() if arguments.descriptor_set else b""
        services = from_set(data, arguments.service) if data else await from_server(channel, arguments.service)
        options = settings(arguments)
        gateway = Gateway(GrpcUpstream(channel), services, options)
        if not gateway.bindings:
            raise DescriptorError("no RPC of these services has a google.api.http rule")
        pages = _pages(services, options, data) if arguments.docs else []
        if not any(binding.template.text == "/healthz" for binding in gateway.bindings):
            pages.append(health.route(channel))
        config = uvicorn.Config(
            Site(gateway, pages), host=host.strip("[]") or "127.0.0.1", port=int(port), log_level="warning",
            access_log=False, proxy_headers=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=10,
            ssl_certfile=arguments.tls_certificate, ssl_keyfile=arguments.tls_key,
        )  # fmt: skip
        connections = Connections(ConnectionLimits(connections_per_ip=0))
        connections.configure(config, websockets=False)
        scheme = "https" if arguments.tls_key else "http"
        names = ", ".join(service.full_name for service in services)
        # Bound here: the port is known and open before it is printed.
        listener = config.bind_socket()
        listener.listen(config.backlog)
        where = f"{scheme}://{host}:{listener.getsockname()[1]}"
        print(f"serving {len(gateway.bindings)} routes of {names} on {where}", flush=True)
        sweeping = asyncio.create_task(_sweep(connections))
        try:
            await _Server(config, gateway).serve(sockets=[listener])
        finally:
            sweeping.cancel()


class _Server(uvicorn.Server):
    """Uvicorn that has streams end by themselves before it waits for them."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.stop()
        await super().shutdown(sockets)


async def _sweep(connections: Connections) -> None:
    while True:
        await asyncio.sleep(connections.PERIOD_S)
        await connections.sweep()


def _channel(arguments: argparse.Namespace) -> grpc.aio.Channel:
    # What is on this machine is not reached through a proxy.
    host = arguments.upstream.rpartition(":")[0].strip("[]")
    is_here = host in ("localhost", "::1") or host.startswith("127.")
    options = [("grpc.enable_http_proxy", 0)] if is_here else []
    if not arguments.upstream_tls:
        return grpc.aio.insecure_channel(arguments.upstream, options=options)
    roots = arguments.upstream_ca.read_bytes() if arguments.upstream_ca else None
    return grpc.aio.secure_channel(arguments.upstream, grpc.ssl_channel_credentials(roots), options=options)


def _pages(services: list[ServiceDescriptor], options: Options, data: bytes) -> list[Route]:
    info = Info(", ".join(service.name for service in services), __version__)
    return docs.routes(document(services, options, info, descriptor_set=data))
