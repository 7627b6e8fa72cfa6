"""``/healthz``: the upstream's own health, in the form of grpc-gateway's ``WithHealthzEndpoint``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from footlights.gateway.errors import NOT_FOUND, UNAVAILABLE
from footlights.http.status import HTTP_STATUS

if TYPE_CHECKING:
    from starlette.requests import Request

TIMEOUT_S: Final = 5.0
_Status = health_pb2.HealthCheckResponse.ServingStatus


def route(channel: grpc.aio.Channel, path: str = "/healthz") -> Route:
    """Return ``GET {path}?service=NAME``: 200 while ``grpc.health.v1`` says SERVING, else 503; 404 if it is unknown.

    Where the upstream cannot be reached, or has no health service, the answer has that status (503, 501).
    """
    check = health_pb2_grpc.HealthStub(channel).Check

    async def healthz(request: Request) -> Response:
        asked = health_pb2.HealthCheckRequest(service=request.query_params.get("service", ""))
        try:
            status = (await check(asked, timeout=TIMEOUT_S)).status
        except grpc.aio.AioRpcError as error:
            return _problem(error.code().value[0], error.details() or "")
        if status == health_pb2.HealthCheckResponse.SERVING:
            return JSONResponse({"status": "SERVING"})
        unknown = status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return _problem(NOT_FOUND if unknown else UNAVAILABLE, f"status:{_name(status)}")

    return Route(path, healthz)


def _name(status: Any) -> str:
    found = _Status.DESCRIPTOR.values_by_number.get(status)
    return found.name if found is not None else str(status)


def _problem(code: int, message: str) -> Response:
    return JSONResponse({"code": code, "message": message, "details": []}, HTTP_STATUS.get(code, 500))
