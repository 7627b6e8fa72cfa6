"""What holds for the whole contract, read from its descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from footlights.agent.v1 import agent_pb2, recipe_pb2
from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.replica.v1 import replica_pb2
from footlights.v1 import (
    application_pb2,
    node_pb2,
    permission_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
)
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor, MethodDescriptor

from footlights.auth.roles import PERMISSIONS
from footlights.control.assembly import REST_SERVICES, SERVICES
from footlights.gateway import Binding, routes
from footlights.gateway.options import Options

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        agent_pb2,
        link_node_pb2,
        recipe_pb2,
        application_pb2,
        node_pb2,
        profile_pb2,
        replica_pb2,
        session_pb2,
        token_pb2,
    )
]
METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]
IMAGE = Path(__file__).parents[1] / "gen" / "footlights" / "v1" / "footlights.binpb"


def _enums() -> Iterator[EnumDescriptor]:
    for file in FILES:
        yield from file.enum_types_by_name.values()
        pending = list(file.message_types_by_name.values())
        while pending:
            message = pending.pop()
            yield from message.enum_types
            pending += message.nested_types


def _http(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().HasExtension(annotations_pb2.http))


def test_the_services_are_those_that_are_served() -> None:
    """A service that is declared is registered, and the other way round."""
    declared = {service.full_name for file in FILES for service in file.services_by_name.values()}

    assert declared == set(SERVICES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_names_a_permission_that_some_role_holds(method: MethodDescriptor) -> None:
    """An RPC without one would be refused to everybody; a misspelt one, too."""
    permission = method.GetOptions().Extensions[permission_pb2.permission]

    assert permission
    assert any(permission in held for held in PERMISSIONS.values())


def test_every_permission_that_a_role_holds_is_asked_for_somewhere() -> None:
    """But for the three that depend on the request."""
    named = {method.GetOptions().Extensions[permission_pb2.permission] for method in METHODS}
    inside = {"sessions.all", "sessions.create_for_others", "sessions.priority"}

    assert set().union(*PERMISSIONS.values()) == named | inside


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_but_the_link_has_a_rest_form(method: MethodDescriptor) -> None:
    """Agents and replicas speak gRPC only; people have both."""
    assert _http(method) == (method.containing_service.full_name in REST_SERVICES)
    assert _http(method) == (method.containing_service.name not in ("AgentService", "ReplicaService"))


@pytest.mark.parametrize("enum", list(_enums()), ids=lambda enum: enum.full_name)
def test_every_enums_zero_is_unspecified(enum: EnumDescriptor) -> None:
    """So that absent is never mistaken for a value (AIP-126)."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()

    assert enum.values_by_number[0].name == f"{snake}_UNSPECIFIED"
    assert [value.name for value in enum.values if value.name.endswith("_UNSPECIFIED")] == [f"{snake}_UNSPECIFIED"]


# Comments


def _image() -> list[descriptor_pb2.FileDescriptorProto]:
    image = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    return [file for file in image.file if file.name.startswith("footlights/")]


def _elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every service, RPC, message, field, enum, value and extension, with its path (descriptor.proto, Location)."""
    for s, service in enumerate(file.service):
        yield service.name, (6, s)
        yield from ((f"{service.name}.{method.name}", (6, s, 2, m)) for m, method in enumerate(service.method))
    for e, extension in enumerate(file.extension):
        yield extension.name, (7, e)
    for e, enum in enumerate(file.enum_type):
        yield from _enum(enum, (5, e), "")
    for m, message in enumerate(file.message_type):
        yield from _message(message, (4, m), "")


def _message(
    message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], above: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if message.options.map_entry:
        return
    name = f"{above}{message.name}"
    yield name, path
    yield from ((f"{name}.{field.name}", (*path, 2, f)) for f, field in enumerate(message.field))
    yield from ((f"{name}.{oneof.name}", (*path, 8, o)) for o, oneof in enumerate(message.oneof_decl)
                if not oneof.name.startswith("_"))  # fmt: skip
    for n, nested in enumerate(message.nested_type):
        yield from _message(nested, (*path, 3, n), f"{name}.")
    for e, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, 4, e), f"{name}.")


def _enum(
    enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], above: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{above}{enum.name}", path
    yield from ((f"{above}{enum.name}.{value.name}", (*path, 2, v)) for v, value in enumerate(enum.value))


@pytest.mark.parametrize("file", _image(), ids=lambda file: file.name)
def test_everything_is_commented_in_a_sentence(file: descriptor_pb2.FileDescriptorProto) -> None:
    """The comments are the reference that users read in OpenAPI and in their editor (AIP-192)."""
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}

    missing = [name for name, path in _elements(file) if not comments.get(path, "")]
    unfinished = [name for name, path in _elements(file) if comments.get(path, "") and comments[path][-1] not in ".`:"]

    assert missing == []
    assert unfinished == []


@pytest.mark.parametrize("file", _image(), ids=lambda file: file.name)
def test_a_fields_behaviour_is_what_its_comment_says_first(file: descriptor_pb2.FileDescriptorProto) -> None:
    """``Required.``, ``Optional.`` or ``Output only.``, and the option that enforces it (AIP-203)."""
    words: dict[int, tuple[str, ...]] = {
        field_behavior_pb2.REQUIRED: ("Required",),
        field_behavior_pb2.OPTIONAL: ("Optional", "Required, but"),
        field_behavior_pb2.OUTPUT_ONLY: ("Output only",),
    }
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
    fields = {path: name for name, path in _elements(file)}
    wrong = [
        fields[4, m, 2, f]
        for m, message in enumerate(file.message_type)
        for f, field in enumerate(message.field)
        for behavior in field.options.Extensions[field_behavior_pb2.field_behavior]
        if not comments[4, m, 2, f].startswith(words[behavior])
    ]

    assert wrong == []


# Paths

_SAMPLES = ("x", "a:b", "x:watch", "x:connect", "x:extend", "x:tailLog", "x:cordon", "x:uncordon", "x:drain")


def _examples(binding: Binding) -> set[str]:
    """Paths that a template may be meant for, with awkward values in its variables."""
    path = binding.template.text
    return {re.sub(r"\{[^}]*\}", sample, path) for sample in _SAMPLES}


def test_every_path_that_two_rpcs_can_match_is_known() -> None:
    """Where templates overlap the last declared wins; none may begin to overlap unnoticed."""
    bindings = routes(REST_SERVICES, Options(allow_delete_body=True))
    overlaps = set()
    for first, second in combinations(bindings, 2):
        if first.http_method != second.http_method or first.rpc is second.rpc:
            continue
        if any(_matches(first, path) and _matches(second, path) for path in _examples(first) | _examples(second)):
            overlaps.add((first.http_method, first.rpc.name, second.rpc.name))

    assert overlaps == {("GET", "GetSession", "WatchSession"), ("GET", "GetSession", "TailSessionLog")}


def _matches(binding: Binding, path: str) -> bool:
    from footlights.gateway.routing.router import Router

    try:
        return Router([binding]).find(binding.http_method, path) is not None
    except Exception:
        return False


def test_a_verb_reaches_its_own_rpc() -> None:
    """``/stream/x:watch`` is WatchSession, never GetSession of a session called ``x:watch``."""
    from footlights.gateway.routing.router import Router

    router = Router(routes(REST_SERVICES, Options(allow_delete_body=True)))
    expected = {
        ("GET", "/stream"): "ListSessions",
        ("GET", "/stream:watch"): "WatchSessions",
        ("GET", "/stream/x"): "GetSession",
        ("GET", "/stream/x:watch"): "WatchSession",
        ("GET", "/stream/x:tailLog"): "TailSessionLog",
        ("GET", "/stream/x/log"): "GetSessionLog",
        ("POST", "/stream"): "CreateSession",
        ("POST", "/stream:explain"): "ExplainPlacement",
        ("POST", "/stream/x:connect"): "ConnectSession",
        ("POST", "/stream/x:extend"): "ExtendSession",
        ("DELETE", "/stream"): "TerminateSession",
        ("DELETE", "/stream/x"): "TerminateSession",
        ("GET", "/applications/a/versions/1.0.0"): "GetVersion",
        ("PUT", "/applications/a/releases/default"): "SetRelease",
        ("POST", "/nodes/a.example.com:drain"): "DrainNode",
        ("DELETE", "/nodes/a"): "ForgetNode",
        ("GET", "/caller"): "GetCaller",
    }

    for (method, path), rpc in expected.items():
        route = router.find(method, path)
        assert route is not None, (method, path)
        assert route.binding.rpc.name == rpc
