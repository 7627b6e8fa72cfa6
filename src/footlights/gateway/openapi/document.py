"""The OpenAPI document: operations from bindings, and what others add."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor_pb2 import FileOptions

from footlights.gateway.openapi.answer_schema import AnswerSchemas
from footlights.gateway.openapi.answers import DETAILS, OperationAnswers
from footlights.gateway.openapi.comments import comments
from footlights.gateway.openapi.components import Components, Schema, reachable
from footlights.gateway.openapi.request_schema import RequestSchemas
from footlights.gateway.openapi.requests import OperationRequests
from footlights.gateway.routing.binding import Binding, routes, walk
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, ServiceDescriptor

    from footlights.gateway.options import Options

_METHODS: Final = frozenset(("get", "put", "post", "delete", "options", "head", "patch", "trace"))


@dataclass(frozen=True, slots=True)
class Info:
    """The parts of the document that descriptors do not hold."""

    title: str
    version: str
    """The API's own, not that of the software that serves it."""
    description: str = ""
    servers: tuple[str, ...] = ()
    bearer: bool = False
    """Whether calls are authorised by a bearer token."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Members of ``info`` whose names start with ``x-``."""


def document(
    services: Sequence[ServiceDescriptor | str],
    options: Options,
    info: Info,
    *,
    descriptor_set: bytes = b"",
    fragments: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The OpenAPI document of what a gateway with these options serves.

    Args:
        services: as the gateway's.
        options: as the gateway's.
        info: title, version, security.
        descriptor_set: a FileDescriptorSet with source info, for comments.
        fragments: ``paths``, ``tags`` and ``components`` of what is served beside the gateway; they may refer to its
            components.

    Raises:
        ValueError: a fragment has an operation or a component that the document already has.
    """
    built = _Document(routes(services, options), options, info, comments(descriptor_set)).build()
    for fragment in fragments:
        _merge(built, fragment)
    return built


class _Document:
    def __init__(self, bindings: Sequence[Binding], options: Options, info: Info, texts: Mapping[str, str]) -> None:
        self._bindings, self._info, self._texts = bindings, info, texts
        self._components = Components(reachable([*_answers(bindings), *DETAILS]))
        self._requests = OperationRequests(RequestSchemas(self._components, options, texts), options)
        self._answers = OperationAnswers(
            AnswerSchemas(self._components, options, texts), options, texts, bearer=info.bearer
        )
        self._ids: set[str] = set()

    def build(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        tags: dict[str, Schema] = {}
        for binding in self._bindings:
            path, parameters = self._requests.path(binding)
            method = binding.http_method.lower()
            if method in _METHODS:
                # The binding declared last wins, as in the router.
                paths.setdefault(path, {})[method] = self._operation(binding, parameters)
            service = binding.rpc.containing_service
            tags[service.name] = {"name": service.name}
            if service.full_name in self._texts:
                tags[service.name]["description"] = self._texts[service.full_name]
        info = self._info
        about: Schema = {"title": info.title, "version": info.version, **info.extensions}
        if info.description:
            about["description"] = info.description
        built: dict[str, Any] = {"openapi": "3.1.0", "info": about}
        if info.servers:
            built["servers"] = [{"url": url} for url in info.servers]
        if info.bearer:
            built["security"] = [{"bearer": []}]
        return {**built, "tags": list(tags.values()), "paths": paths, "components": self._shared()}

    def _shared(self) -> Schema:
        found: Schema = {
            "schemas": dict(sorted(self._components.schemas.items())),
            "responses": self._answers.responses,
            "parameters": self._requests.parameters,
            "headers": self._answers.headers,
        }
        if self._info.bearer:
            found["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return {kind: components for kind, components in found.items() if components}

    def _operation(self, binding: Binding, parameters: Sequence[Schema]) -> Schema:
        rpc = binding.rpc
        text = self._texts.get(rpc.full_name, "")
        operation: Schema = {"operationId": self._id(binding), "tags": [rpc.containing_service.name]}
        if text:
            operation["summary"] = re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(".:;")
        if binding.deprecation is not None:
            operation["deprecated"] = True
            text = f"{self._deprecation(binding)}\n\n{text}".strip()
        if text:
            operation["description"] = text
        headers = self._requests.headers(binding)
        if found := [*parameters, *self._requests.query(binding), *headers.values()]:
            operation["parameters"] = found
        if binding.body:
            operation["requestBody"] = self._requests.body(binding)
        operation["responses"] = self._answers.of(binding, headers)
        return operation

    def _deprecation(self, binding: Binding) -> str:
        """Since when a path is deprecated, until when it is there, and what to use."""
        # Through bytes: descriptors of another pool carry options of that pool's classes.
        options = FileOptions.FromString(binding.rpc.containing_service.file.GetOptions().SerializeToString())
        dates = options.Extensions[annotations_pb2.deprecation]
        said = f"Deprecated since {dates.since}" if dates.since else "Deprecated"
        if dates.sunset:
            said += f", may be missing from {dates.sunset}"
        successor = binding.deprecation.successor if binding.deprecation is not None else None
        for other in self._bindings:
            if other.rpc is binding.rpc and other.template is successor:
                said += f": use `{other.http_method} {other.template.text}`"
        return f"{said}."

    def _id(self, binding: Binding) -> str:
        """Service and RPC; a number from 2 on for further bindings in their order, which only grows."""
        base = f"{binding.rpc.containing_service.name}_{binding.rpc.name}"
        found, count = base, 1
        while found in self._ids:
            count += 1
            found = f"{base}_{count}"
        self._ids.add(found)
        return found


def _answers(bindings: Sequence[Binding]) -> Iterator[Descriptor]:
    """The messages that the bindings answer."""
    for binding in bindings:
        last = walk(binding.rpc.output_type, binding.response_body)[0] if binding.response_body else None
        message = binding.rpc.output_type if last is None else last.message_type
        if message is not None:
            yield message


def _merge(built: dict[str, Any], fragment: Mapping[str, Any]) -> None:
    built["tags"] += fragment.get("tags", ())
    for path, operations in fragment.get("paths", {}).items():
        _add(built["paths"].setdefault(path, {}), operations, path)
    for kind, components in fragment.get("components", {}).items():
        _add(built["components"].setdefault(kind, {}), components, f"components.{kind}")


def _add(target: dict[str, Any], members: Mapping[str, Any], where: str) -> None:
    for name, member in members.items():
        if target.setdefault(name, member) is not member:
            raise ValueError(f"the document already has {name} at {where}")
