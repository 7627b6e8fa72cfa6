"""What holds for the whole contract, read from its descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

import pytest
from footlights.v1 import error_reason_pb2, permission_pb2
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from footlights.auth.roles import PERMISSIONS
from footlights.control.assembly import KAS_SERVICES, NVCF_SERVICES, REST_SERVICES
from footlights.gateway import Binding, routes
from footlights.gateway.options import Options
from tests.contract import descriptors, golden
from tests.control.harness import SERVICES

FILES = descriptors.files()
METHODS = descriptors.methods()


def _http(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().HasExtension(annotations_pb2.http))


def test_the_services_are_those_that_are_served() -> None:
    """A service that is declared is registered, and the other way round."""
    declared = {service.full_name for file in FILES for service in file.services_by_name.values()}

    assert declared == {*SERVICES, *KAS_SERVICES, *NVCF_SERVICES}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_names_a_permission_that_some_role_holds(method: MethodDescriptor) -> None:
    """An RPC without one would be refused to everybody; a misspelt one, too."""
    permission = method.GetOptions().Extensions[permission_pb2.permission]

    assert permission
    assert any(permission in held for held in PERMISSIONS.values())


def test_every_permission_that_a_role_holds_is_asked_for_somewhere() -> None:
    """But for the four that depend on the request, and that of what HTTP serves beside the API."""
    named = {method.GetOptions().Extensions[permission_pb2.permission] for method in METHODS}
    inside = {
        "sessions.all",
        "sessions.create_for_others",
        "sessions.priority",
        "sessions.any_isolation",
        "metrics.read",
    }

    assert set().union(*PERMISSIONS.values()) == named | inside


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_decides_whether_it_may_be_repeated(method: MethodDescriptor) -> None:
    """GET has no side effects; what is not repeatable by itself takes a request_id, or is a link."""
    options = method.GetOptions()

    assert options.HasField("idempotency_level")
    if any(verb == "GET" for verb, *_ in golden.bindings(method)):
        assert options.idempotency_level == options.NO_SIDE_EFFECTS
    if options.idempotency_level == options.IDEMPOTENCY_UNKNOWN:
        foreign = method.containing_service.full_name in KAS_SERVICES  # what others have defined has none
        assert "request_id" in method.input_type.fields_by_name or method.client_streaming or foreign
    if options.idempotency_level == options.NO_SIDE_EFFECTS:
        assert "request_id" not in method.input_type.fields_by_name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_but_the_link_has_a_rest_form(method: MethodDescriptor) -> None:
    """Agents and replicas speak gRPC only; people have both."""
    assert _http(method) == (method.containing_service.full_name in (*REST_SERVICES, *KAS_SERVICES, *NVCF_SERVICES))
    assert _http(method) == (
        method.containing_service.name not in ("AgentService", "CertificateService", "ReplicaService")
    )


@pytest.mark.parametrize(
    "enum", [enum for file in FILES for enum in descriptors.enums(file)], ids=lambda enum: enum.full_name
)
def test_every_enums_zero_is_unspecified(enum: EnumDescriptor) -> None:
    """So that absent is never mistaken for a value (AIP-126)."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()

    assert enum.values_by_number[0].name == f"{snake}_UNSPECIFIED"
    assert [value.name for value in enum.values if value.name.endswith("_UNSPECIFIED")] == [f"{snake}_UNSPECIFIED"]


# Comments


@pytest.mark.parametrize("file", descriptors.image(), ids=lambda file: file.name)
def test_everything_is_commented_in_a_sentence(file: descriptor_pb2.FileDescriptorProto) -> None:
    """The comments are the reference that users read in OpenAPI and in their editor (AIP-192)."""
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}

    missing = [name for name, path in descriptors.elements(file) if not comments.get(path, "")]
    unfinished = [
        name for name, path in descriptors.elements(file) if comments.get(path, "") and comments[path][-1] not in ".`:"
    ]

    assert missing == []
    assert unfinished == []


@pytest.mark.parametrize("file", descriptors.image(), ids=lambda file: file.name)
def test_a_fields_behaviour_is_what_its_comment_says_first(file: descriptor_pb2.FileDescriptorProto) -> None:
    """``Required.``, ``Optional.`` or ``Output only.``, and the option that enforces it (AIP-203)."""
    words: dict[int, tuple[str, ...]] = {
        field_behavior_pb2.REQUIRED: ("Required",),
        field_behavior_pb2.OPTIONAL: ("Optional", "Required, but"),
        field_behavior_pb2.OUTPUT_ONLY: ("Output only",),
    }
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
    fields = {path: name for name, path in descriptors.elements(file)}
    wrong = [
        fields[4, m, 2, f]
        for m, message in enumerate(file.message_type)
        for f, field in enumerate(message.field)
        for behavior in field.options.Extensions[field_behavior_pb2.field_behavior]
        if not comments[4, m, 2, f].startswith(words[behavior])
    ]

    assert wrong == []


PUBLIC = descriptors.public_methods()
COMMENTS = descriptors.comments()
REPEATABLE = {"NO_SIDE_EFFECTS": "yes", "IDEMPOTENT": "yes", "IDEMPOTENCY_UNKNOWN": "with request_id"}
EXPECTED_OF_FIELDS = {
    "etag": "ETAG_MISMATCH",
    "filter": "INVALID_FILTER",
    "page_token": "INVALID_PAGE_TOKEN",
    "request_id": "REQUEST_ID_REUSED",
}


def _reasons() -> set[str]:
    return {value.name for value in error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values}


@pytest.mark.parametrize("method", PUBLIC, ids=lambda method: method.full_name)
def test_an_rpc_says_its_errors_its_permission_and_whether_it_may_be_repeated(method: MethodDescriptor) -> None:
    """In the last lines of its comment, which agree with its options and the fields of its request."""
    text, _, facts = COMMENTS[method.full_name].partition("\n\n")
    found = re.fullmatch(r"Errors: (.*)\. Permission: (.*)\. Repeatable: (.*)\.", " ".join(facts.split()))
    assert text.strip()
    assert found, facts
    errors = [] if found[1] == "none of its own" else found[1].split(", ")
    options = method.GetOptions()

    assert found[2] == options.Extensions[permission_pb2.permission]
    assert found[3] == REPEATABLE[options.IdempotencyLevel.Name(options.idempotency_level)]
    assert set(errors) <= _reasons()
    assert len(errors) == len(set(errors))
    for field, reason in EXPECTED_OF_FIELDS.items():
        assert (reason in errors) == (field in method.input_type.fields_by_name), reason


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

    assert overlaps == {
        ("GET", "GetSession", "FollowSessions"),
        ("GET", "GetSession", "TailSessionLog"),
        ("GET", "GetStream", "WatchSession"),
        ("GET", "GetStream", "TailSessionLog"),
    }


def _matches(binding: Binding, path: str) -> bool:
    from footlights.gateway.routing.router import Router

    try:
        return Router([binding]).find(binding.http_method, path) is not None
    except Exception:
        return False


def test_a_verb_reaches_its_own_rpc() -> None:
    """``/v1/sessions/x:watch`` is FollowSessions, never GetSession of a session called ``x:watch``."""
    from footlights.gateway.routing.router import Router

    router = Router(routes(REST_SERVICES, Options(allow_delete_body=True)))
    expected = {
        ("GET", "/v1/sessions"): "ListSessions",
        ("GET", "/v1/sessions:watch"): "FollowSessions",
        ("GET", "/v1/sessions/x"): "GetSession",
        ("GET", "/v1/sessions/x:watch"): "FollowSessions",
        ("GET", "/v1/sessions/x:tailLog"): "TailSessionLog",
        ("GET", "/v1/sessions/x/log"): "GetSessionLog",
        ("POST", "/v1/sessions"): "CreateSession",
        ("POST", "/v1/sessions:explain"): "ExplainPlacement",
        ("POST", "/v1/sessions/x:connect"): "ConnectSession",
        ("POST", "/v1/sessions/x:extend"): "ExtendSession",
        ("PATCH", "/v1/sessions/x"): "UpdateSession",
        ("DELETE", "/v1/sessions/x"): "TerminateSession",
        ("GET", "/stream"): "ListStreams",
        ("GET", "/stream:watch"): "WatchSessions",
        ("GET", "/stream/x"): "GetStream",
        ("GET", "/stream/x:watch"): "WatchSession",
        ("GET", "/stream/x:tailLog"): "TailSessionLog",
        ("GET", "/stream/x/log"): "GetSessionLog",
        ("POST", "/stream"): "CreateStream",
        ("POST", "/stream:explain"): "ExplainPlacement",
        ("POST", "/stream/x:connect"): "ConnectSession",
        ("POST", "/stream/x:extend"): "ExtendSession",
        ("DELETE", "/stream"): "TerminateStream",
        ("DELETE", "/stream/x"): "TerminateStream",
        ("GET", "/applications/a/versions/1.0.0"): "GetVersion",
        ("PUT", "/applications/a/releases/default"): "SetRelease",
        ("GET", "/v1/applications/a/releases/default"): "GetRelease",
        ("PATCH", "/v1/applications/a/releases/default"): "UpdateRelease",
        ("PATCH", "/v1/nodes/a.example.com"): "UpdateNode",
        ("POST", "/v1/nodes/a.example.com:drain"): "DrainNode",
        ("POST", "/nodes/a.example.com:drain"): "DrainNode",
        ("DELETE", "/nodes/a"): "ForgetNode",
        ("GET", "/caller"): "GetCaller",
    }

    for (method, path), rpc in expected.items():
        route = router.find(method, path)
        assert route is not None, (method, path)
        assert route.binding.rpc.name == rpc


_TIMES = "google.protobuf.Timestamp"
_SPANS = "google.protobuf.Duration"
_SPAN_NAMES = ("_duration", "_timeout", "_period", "_interval", "_after", "_by", "_for", "_in")

NAMED_OTHERWISE = {
    "footlights.v1.Session.Queue.eta": "deprecated: estimated_wait_duration",
    "footlights.v1.ExplainPlacementResponse.eta": "deprecated: estimated_wait_duration",
    "footlights.v1.DrainNodeRequest.deadline": "deprecated: drain_timeout",
    "footlights.v1.InviteNodeRequest.ttl": "as a token's",
    "footlights.v1.RotateAuthorityRequest.ttl": "as a token's",
    "footlights.v1.CreateTokenRequest.ttl": "the common word for a lifetime",
    "footlights.replica.v1.FindRivalRequest.patience": "between replicas only",
    "footlights.v1.Pool.wait_goal": "what is aimed at, and not how long anything is",
    "footlights.agent.v1.LaunchReport.Step.age": "how long ago, the opposite of a time",
}
"""Times and durations whose names do not end as such, with the reason."""


def _fields(message: Descriptor) -> Iterator[FieldDescriptor]:
    yield from message.fields
    for nested in message.nested_types:
        yield from _fields(nested)


def test_times_and_durations_are_named_as_such() -> None:
    """A time ends in ``_time``, a duration in what it is: ``_timeout``, ``_duration``, ``_period``."""
    odd = set()
    for file in FILES:
        for message in file.message_types_by_name.values():
            for field in _fields(message):
                kind = field.message_type.full_name if field.message_type is not None else ""
                well = (
                    (kind == _TIMES and (field.name == "time" or field.name.endswith("_time")))
                    or (kind == _SPANS and field.name.endswith(_SPAN_NAMES))
                    or kind not in (_TIMES, _SPANS)
                )
                if not well:
                    odd.add(field.full_name)

    assert odd == set(NAMED_OTHERWISE)
    deprecated = {name for name, why in NAMED_OTHERWISE.items() if why.startswith("deprecated")}
    pool = descriptor_pool.Default()
    assert {name for name in odd if pool.FindFieldByName(name).GetOptions().deprecated} == deprecated
