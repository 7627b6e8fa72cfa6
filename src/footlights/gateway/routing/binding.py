"""Bindings of HTTP methods and paths to RPCs, read from ``google.api.http`` rules and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from footlights.gateway.decode.well_known import WRAPPERS
from footlights.gateway.options import Options
from footlights.gateway.routing.deprecation import Deprecation, dates_of
from footlights.gateway.routing.path_template import PathTemplate, PathTemplateError
from footlights.http.v1 import annotations_pb2 as reply_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.api.http_pb2 import HttpRule
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

HTTP_BODY = "google.api.HttpBody"
_SINGLE_VALUED = frozenset((
    "google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask", *WRAPPERS,
))  # fmt: skip


class BindingError(ValueError):
    """An annotation that cannot be served."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP method and path of one RPC."""

    rpc: MethodDescriptor
    http_method: str
    template: PathTemplate
    body: str
    """``""``, ``"*"`` or the name of a request field."""
    response_body: str
    """``""`` or the name of a response field."""
    reply: reply_pb2.Reply
    deprecation: Deprecation | None = None
    """Set where clients must stop using the path."""

    @property
    def path(self) -> str:
        """The RPC's path on the wire: ``/package.Service/Method``."""
        return f"/{self.rpc.containing_service.full_name}/{self.rpc.name}"

    @property
    def pool(self) -> DescriptorPool:
        """The pool of the service."""
        return self.rpc.containing_service.file.pool

    def __str__(self) -> str:
        return f"{self.rpc.full_name} ({self.http_method} {self.template.text})"


def routes(services: Sequence[ServiceDescriptor | str], options: Options | None = None) -> list[Binding]:
    """Every binding of the services in order of declaration; the last declared wins where several match.

    Raises:
        BindingError: a rule that cannot be served, or an unknown service; the message names RPC and path.
    """
    options = options or Options()
    found = []
    for service in map(resolve, services):
        for rpc in service.methods:
            # Through bytes: descriptors of another pool carry options of that pool's classes.
            method_options = MethodOptions.FromString(rpc.GetOptions().SerializeToString())
            if not method_options.HasExtension(annotations_pb2.http):
                continue
            rule = method_options.Extensions[annotations_pb2.http]
            reply = method_options.Extensions[reply_pb2.reply]
            bound = [_bind(rpc, rule, reply, options)]
            for additional in rule.additional_bindings:
                if additional.additional_bindings:
                    raise BindingError(f"{rpc.full_name}: additional_bindings must not have additional_bindings")
                bound.append(_bind(rpc, additional, reply, options))
            found += _deprecated(bound, method_options)
    return found


def resolve(service: ServiceDescriptor | str) -> ServiceDescriptor:
    """The descriptor of a service, given by itself or by its full name in the default pool."""
    if not isinstance(service, str):
        return service
    try:
        return descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise BindingError(f"no service {service!r} in the descriptor pool; import its module first") from None


def walk(message: Descriptor, path: str) -> list[FieldDescriptor]:
    """The fields along a dotted path of proto names.

    Raises:
        BindingError: a name that does not exist, or a member of a field that is not a message.
    """
    fields: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for name in path.split("."):
        if at is None:
            raise BindingError(f"{'.'.join(f.name for f in fields)!r} is not a message, so {path!r} is not a field")
        field = at.fields_by_name.get(name)
        if field is None:
            raise BindingError(f"no field {name!r} in {at.full_name}")
        fields.append(field)
        at = None if field.is_repeated else field.message_type
    return fields


def _deprecated(bound: list[Binding], method: MethodOptions) -> list[Binding]:
    """Return an RPC's bindings, marked where its options say that they are deprecated."""
    rpc, paths = bound[0].rpc, set(method.Extensions[reply_pb2.deprecated_paths])
    if unknown := paths - {binding.template.text for binding in bound}:
        raise BindingError(f"{rpc.full_name}: deprecated_paths: {min(unknown)!r} is not one of its paths")
    if not paths and not method.deprecated:
        return bound
    try:
        dates = dates_of(rpc.containing_service.file)
    except ValueError as error:
        raise BindingError(f"{rpc.full_name}: deprecation: {error}") from None
    first = bound[0].template
    return [
        replace(binding, deprecation=Deprecation(dates, None if binding.template.text == first.text else first))
        if method.deprecated or binding.template.text in paths
        else binding
        for binding in bound
    ]


def _bind(rpc: MethodDescriptor, rule: HttpRule, reply: reply_pb2.Reply, options: Options) -> Binding:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise BindingError(f"{rpc.full_name}: the rule must have a path")
    if pattern == "custom":
        http_method, path = rule.custom.kind, rule.custom.path
    else:
        http_method, path = pattern.upper(), getattr(rule, pattern)
    try:
        template = PathTemplate.parse(path)
        binding = Binding(rpc, http_method, template, rule.body, rule.response_body, reply)
        _check(binding, options)
    except (PathTemplateError, BindingError) as error:
        raise BindingError(f"{rpc.full_name} ({http_method} {path}): {error}") from error
    return binding


def _check(binding: Binding, options: Options) -> None:
    rpc = binding.rpc
    if binding.body and binding.http_method == "GET":
        raise BindingError("GET must not have a body")
    if binding.body and binding.http_method == "DELETE" and not options.allow_delete_body:
        raise BindingError("DELETE must not have a body, unless allow_delete_body is set")
    if rpc.client_streaming and binding.template.variables:
        raise BindingError("a client stream must not have path variables")
    if rpc.client_streaming and binding.body != "*":
        raise BindingError('a client stream must have body: "*"')
    for variable in binding.template.variables:
        *passed, last = walk(rpc.input_type, variable.field_path)
        if any(field.is_repeated for field in passed):
            raise BindingError(f"{variable.field_path!r} must not pass a repeated field")
        if last.message_type is not None and last.message_type.full_name not in _SINGLE_VALUED:
            raise BindingError(f"{variable.field_path!r} must be a scalar, not a message")
    for name, message in ((binding.body, rpc.input_type), (binding.response_body, rpc.output_type)):
        if name not in ("", "*"):
            if "." in name:
                raise BindingError(f"body {name!r} must be a field of the message itself")
            walk(message, name)
    reply = binding.reply
    if reply.HasField("accepted"):
        walk(rpc.output_type, reply.accepted.field)
    if reply.event_id:
        walk(rpc.output_type, reply.event_id)
    if reply.event_type:
        walk(rpc.output_type, reply.event_type)
    if reply.last_event_id_field:
        walk(rpc.input_type, reply.last_event_id_field)
