"""The front door's operations in OpenAPI 3.1, to be merged into the document of the API.

The components ``Unauthenticated``, ``Unavailable`` and ``X-Request-Id`` are the document's.
"""

from __future__ import annotations

from typing import Any, Final

SESSION_PATHS: Final = ("/v1/sessions/{session_id}", "/stream/{session_id}")
"""Where sessions are whose signalling the front door has; the operations of each after the first are numbered."""

_TAG: Final = "FrontDoor"
_OFFER: Final = "application/sdp"
_FRAGMENT: Final = "application/trickle-ice-sdpfrag"
_SECURITY: Final[list[dict[str, list[str]]]] = [{"grant": []}, {"grant_in_query": []}]
_STATUS: Final = {
    "type": "object", "required": ["code", "status", "message", "details"],
    "properties": {
        "code": {"type": "integer"},
        "status": {"type": "string"},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
        },
    },
}  # fmt: skip


def fragment() -> dict[str, Any]:
    """Paths, tag and components."""
    paths: dict[str, Any] = {}
    for number, session in enumerate(SESSION_PATHS, 1):
        suffix = "" if number == 1 else f"_{number}"
        paths[f"{session}/whep"] = {"post": _offer(suffix)}
        paths[f"{session}/whep/{{resource}}"] = {"patch": _trickle(suffix), "delete": _hang_up(suffix)}
        paths[f"{session}/sign_in"] = {
            "get": _sign_in(suffix), "head": _look(suffix), "delete": _leave(suffix),
        }  # fmt: skip
    text = "Brings viewers to the signalling of their session. The grant is that of ConnectSession."
    return {
        "tags": [{"name": _TAG, "description": text}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "grant": {
                    "type": "http", "scheme": "bearer",
                    "description": "A grant, the `token` of ConnectSession. A WebSocket may send it as the "
                    "subprotocol `Authorization-Bearer.<token>`.",
                },
                "grant_in_query": {
                    "type": "apiKey", "in": "query", "name": "access_token",
                    "description": "The grant, for players that send no headers.",
                },
            },
            "responses": {
                "SignalingError": {
                    "description": "An error, as a google.rpc.Status (422 for a bad request and never 400, 409 for a "
                    "session that has ended), or what the application answered.",
                    "headers": _headers(),
                    "content": {"application/json": {"schema": _STATUS}, "*/*": {"schema": {}}},
                },
            },
        },
    }  # fmt: skip


def _offer(suffix: str) -> dict[str, Any]:
    links = {"schema": {"type": "string"}, "description": "ICE servers of the application."}
    return {
        **_about(f"OfferWhep{suffix}", "Connects a viewer with WHEP: takes its offer and answers with the answer."),
        "parameters": _parameters(),
        "requestBody": _body(_OFFER, "The viewer's offer."),
        "responses": {
            "201": {
                "description": "The application's answer; `Location` is the viewer's connection.",
                "headers": {**_headers("Location", "ETag"), "Link": links},
                "content": {_OFFER: {"schema": {"type": "string"}}},
            },
            **_errors(),
        },
    }


def _trickle(suffix: str) -> dict[str, Any]:
    match = {
        "name": "If-Match", "in": "header", "schema": {"type": "string"},
        "description": "The `ETag` of the connection, which the application compares.",
    }  # fmt: skip
    return {
        **_about(f"TrickleWhep{suffix}", "Sends candidates of a viewer, or restarts ICE, if the application takes it."),
        "parameters": _parameters("resource", match),
        "requestBody": _body(_FRAGMENT, "Candidates."),
        "responses": {
            "200": {
                "description": "The application's own candidates.", "headers": _headers("ETag"),
                "content": {_FRAGMENT: {"schema": {"type": "string"}}},
            },
            "204": {"description": "Taken.", "headers": _headers("ETag")},
            **_errors(),
        },
    }  # fmt: skip


def _hang_up(suffix: str) -> dict[str, Any]:
    return {
        **_about(f"EndWhep{suffix}", "Ends a viewer's connection; with its own grant also after that has expired."),
        "parameters": _parameters("resource"),
        "responses": {"200": {"description": "It has ended.", "headers": _headers()}, **_errors()},
    }


def _sign_in(suffix: str) -> dict[str, Any]:
    text = "Opens the WebSocket of NVIDIA's signalling. Its messages are the application's, and so is the query."
    return {
        **_about(f"SignIn{suffix}", text),
        "parameters": _parameters(),
        "responses": {
            "101": {"description": "The WebSocket is open."},
            "426": {"$ref": "#/components/responses/SignalingError"},
            **_errors(),
        },
    }


def _look(suffix: str) -> dict[str, Any]:
    return {
        **_about(f"LookIn{suffix}", "Says whether a viewer could be connected now."),
        "parameters": _parameters(),
        "responses": {"200": {"description": "It could.", "headers": _headers()}, **_errors()},
    }


def _leave(suffix: str) -> dict[str, Any]:
    return {
        **_about(f"SignOut{suffix}", "Closes the viewer's own WebSockets at this server."),
        "parameters": _parameters(),
        "responses": {"204": {"description": "They are closed.", "headers": _headers()}, **_errors()},
    }


def _about(name: str, text: str) -> dict[str, Any]:
    summary = text.partition(": ")[0].partition(". ")[0].rstrip(".")
    return {
        "operationId": f"{_TAG}_{name}", "tags": [_TAG], "summary": summary, "description": text, "security": _SECURITY,
    }  # fmt: skip


def _parameters(*more: str | dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *(p if isinstance(p, dict) else _in_path(p) for p in ("session_id", *more)),
        {"$ref": "#/components/parameters/X-Request-Id"},
    ]


def _in_path(name: str) -> dict[str, Any]:
    text = {
        "session_id": "The session's id.",
        "resource": "The end of the `Location` that the offer was answered with.",
    }
    schema = {"type": "string", "pattern": "^[^/]*[^/.][^/]*$"}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text[name]}


def _body(media_type: str, text: str) -> dict[str, Any]:
    return {"required": True, "description": text, "content": {media_type: {"schema": {"type": "string"}}}}


def _headers(*names: str) -> dict[str, Any]:
    found = {"Location": "The viewer's connection.", "ETag": "That of the application."}
    headers: dict[str, Any] = {name: {"schema": {"type": "string"}, "description": found[name]} for name in names}
    return {**headers, "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}


def _errors() -> dict[str, Any]:
    return {
        "401": {"$ref": "#/components/responses/Unauthenticated"},
        "503": {"$ref": "#/components/responses/Unavailable"},
        "default": {"$ref": "#/components/responses/SignalingError"},
    }
