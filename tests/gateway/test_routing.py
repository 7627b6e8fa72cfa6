"""From descriptors to bindings, and from requests to bindings; covers ``binding``, ``router`` and
``field_options``."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.http.v1 import annotations_pb2 as reply_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from footlights.gateway import BindingError, Options, routes
from footlights.gateway.routing.router import Router, VerbAlone
from tests.conformance.echo import service


def a_service(*rules: dict[str, Any], reply: dict[str, Any] | None = None, **method: Any) -> ServiceDescriptor:
    """A service whose RPCs have the rules, in order, over one request and one response type."""
    file = FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="id", number=1, type=9, label=1)
    request = file.message_type.add(name="Request")
    request.field.add(name="name", number=1, type=9, label=1)
    request.field.add(name="inner", number=2, type=11, type_name=".t.Inner", label=1)
    request.field.add(name="many", number=3, type=11, type_name=".t.Inner", label=3)
    response = file.message_type.add(name="Response")
    response.field.add(name="name", number=1, type=9, label=1)
    found = file.service.add(name="S")
    for index, rule in enumerate(rules):
        rpc = found.method.add(name=f"M{index}", input_type=".t.Request", output_type=".t.Response", **method)
        options = MethodOptions()
        additional = rule.pop("additional", [])
        options.Extensions[annotations_pb2.http].CopyFrom(annotations_pb2.google_dot_api_dot_http__pb2.HttpRule(**rule))
        for more in additional:
            options.Extensions[annotations_pb2.http].additional_bindings.add(**more)
        if reply:
            options.Extensions[reply_pb2.reply].CopyFrom(reply_pb2.Reply(**reply))
        rpc.options.CopyFrom(options)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("t.S")


def find(router: Router, method: str, path: str) -> str | None:
    """The template that answers a request."""
    route = router.find(method, path)
    return None if route is None else route.binding.template.text


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"get": "v1"}, "must begin with a slash"),
        ({"get": "/v1", "body": "*"}, "GET must not have a body"),
        ({"delete": "/v1", "body": "*"}, "allow_delete_body"),
        ({"get": "/v1/{nope}"}, "no field 'nope' in t.Request"),
        ({"get": "/v1/{name.id}"}, "not a message"),
        ({"get": "/v1/{inner}"}, "must be a scalar"),
        ({"get": "/v1/{many.id}"}, "is not a field"),
        ({"post": "/v1", "body": "nope"}, "no field 'nope'"),
        ({"post": "/v1", "body": "inner.id"}, "field of the message itself"),
        ({"get": "/v1", "response_body": "nope"}, "no field 'nope' in t.Response"),
        ({}, "must have a path"),
    ],
)
def test_wrong_rule(rule: dict[str, Any], said: str) -> None:
    """
    A rule that cannot be served fails at start, and the message names the RPC and says why.
    """
    with pytest.raises(BindingError) as caught:
        routes([a_service(rule)])

    assert said in str(caught.value)
    assert "t.S.M0" in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [{"event_id": "nope"}, {"last_event_id_field": "nope"}, {"accepted": {"field": "nope", "values": ["a"]}}],
)
def test_wrong_reply(reply: dict[str, Any]) -> None:
    """
    A reply option that names no field fails at start as well.
    """
    with pytest.raises(BindingError, match="no field 'nope'"):
        routes([a_service({"get": "/v1"}, reply=reply)])


def test_client_stream_with_variables() -> None:
    """
    A client stream takes no path variables.
    """
    with pytest.raises(BindingError, match="client stream"):
        routes([a_service({"post": "/v1/{name}", "body": "*"}, client_streaming=True)])


def test_delete_body_allowed() -> None:
    """
    With the option DELETE may have a body.
    """
    assert len(routes([a_service({"delete": "/v1", "body": "*"})], Options(allow_delete_body=True))) == 1


def test_unknown_service() -> None:
    """
    A name that is in no imported module is refused.
    """
    with pytest.raises(BindingError, match=r"no service 'no\.Such'"):
        routes(["no.Such"])


def test_last_declared_wins() -> None:
    """
    Where several templates match, the last declared one answers, additional bindings counted in place.
    """
    router = Router(
        routes(
            [a_service({"get": "/a/{name}", "additional": [{"get": "/a/b"}]}, {"get": "/{name=**}"}, {"get": "/a/c"})]
        )
    )

    assert find(router, "GET", "/a/c") == "/a/c"
    assert find(router, "GET", "/a/b") == "/{name=**}"
    assert Router(routes([a_service({"get": "/a/{name}"}, {"get": "/a/b"})])).find("GET", "/a/b")


def test_verbs() -> None:
    """
    A verb is split off where a template has it, is text where none has it, and alone it is nothing at all.
    """
    router = Router(routes([a_service({"get": "/a/{name}"}, {"get": "/a/{name}:stop"})]))

    assert find(router, "GET", "/a/x:stop") == "/a/{name}:stop"
    assert find(router, "GET", "/a/x:go") == "/a/{name}"
    with pytest.raises(VerbAlone):
        router.find("GET", "/a/:stop")


def test_verbs_bind() -> None:
    """
    Where verbs bind, a path with a verb belongs to the template that has it, under every method.
    """
    service_with_verb = a_service({"get": "/a/{name}"}, {"post": "/a/{name}:stop", "body": "*"})
    router = Router(routes([service_with_verb]), strict=True)

    assert find(router, "GET", "/a/x:stop") is None
    assert router.methods("/a/x:stop") == ["POST"]
    assert find(router, "GET", "/a/x:go") == "/a/{name}"
    assert find(Router(routes([service_with_verb])), "GET", "/a/x:stop") == "/a/{name}"


@pytest.mark.parametrize("path", ["/v1/deep/" + "a/" * count for count in (0, 1, 5, 50, 500)])
def test_long_paths(path: str) -> None:
    """
    Templates with ``**`` match however long the path is.
    """
    assert find(Router(routes([service()])), "GET", path) == "/v1/deep/{name=**}"


def test_methods() -> None:
    """
    The methods of a path are those under which something matches.
    """
    assert Router(routes([service()])).methods("/v1/things/a") == ["DELETE", "GET", "PATCH"]
