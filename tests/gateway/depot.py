"""A service in two generations of paths, whose fields travel in headers as well; its handlers, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor

from footlights.gateway import Gateway, LocalUpstream, Options
from footlights.gateway.routing.descriptors import from_set
from tests.gateway.handlers import HandlerCall, LocalHandlers, fail
from tests.gateway.shop import compiled

PROTO = """
syntax = "proto3";
package depot.v1;
import "footlights/http/v1/annotations.proto";
import "google/api/annotations.proto";
import "google/protobuf/field_mask.proto";

option (footlights.http.v1.deprecation) = {since: "2026-12-01" sunset: "2027-12-01"};

service DepotService {
  rpc GetCrate(GetCrateRequest) returns (Crate) {
    option (google.api.http) = {get: "/v1/crates/{crate}" additional_bindings: {get: "/crates/{crate}"}};
    option (footlights.http.v1.deprecated_paths) = "/crates/{crate}";
    option (footlights.http.v1.reply) = {accepted: {field: "state" values: ["NEW", "9"]}};
  }
  rpc CreateCrate(CreateCrateRequest) returns (Crate) {
    option (google.api.http) = {post: "/v1/crates" body: "*" additional_bindings: {post: "/crates" body: "*"}};
    option (footlights.http.v1.deprecated_paths) = "/crates";
    option (footlights.http.v1.reply) = {
      created: true no_store: true location: "/v1/crates/{crate}" accepted: {field: "state" values: "NEW"}};
  }
  rpc SetCrate(SetCrateRequest) returns (Crate) {
    option (google.api.http) = {put: "/v1/crates/{crate.crate}" body: "crate"};
  }
  rpc UpdateCrate(SetCrateRequest) returns (Crate) {
    option (google.api.http) = {patch: "/v1/crates/{crate.crate}" body: "crate"};
  }
  rpc OpenCrate(CreateCrateRequest) returns (Crate) {
    option (google.api.http) = {post: "/v1/crates/{crate}:open" body: "*"};
  }
  rpc DeleteCrate(DeleteCrateRequest) returns (DeleteCrateResponse) {
    option (google.api.http) = {delete: "/v1/crates/{crate}" response_body: "crate"};
    option (footlights.http.v1.reply) = {accepted: {field: "crate.state" values: "NEW"}};
  }
  rpc WatchCrates(GetCrateRequest) returns (stream Frame) {
    option (google.api.http) = {get: "/v1/crates:watch" additional_bindings: {get: "/crates:watch"}};
    option (footlights.http.v1.deprecated_paths) = "/crates:watch";
    option (footlights.http.v1.reply) = {event_id: "cursor" event_type: "change" last_event_id_field: "crate"};
  }
  rpc WatchSecrets(GetCrateRequest) returns (stream Frame) {
    option deprecated = true;
    option (google.api.http) = {get: "/secrets:watch"};
    option (footlights.http.v1.reply) = {no_store: true};
  }
  rpc Weigh(WeighRequest) returns (Crate) {
    option (google.api.http) = {post: "/v1/crates:weigh" body: "*"};
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message Crate {
  enum State { STATE_UNSPECIFIED = 0; NEW = 1; FULL = 2; }
  string crate = 1;
  State state = 2;
  string etag = 3 [(footlights.http.v1.rules) = {header: "ETag"}];
  repeated State states = 4;
  map<string, State> by_name = 5;
  repeated string tags = 6;
  map<string, string> labels = 7;
  optional State presence = 8;
  Crate inside = 9;
  int32 weight = 10;
}
message GetCrateRequest { string crate = 1; }
message CreateCrateRequest {
  string crate = 1;
  int32 count = 2;
  string request_id = 3 [(footlights.http.v1.rules) = {max_length: 8 header: "Idempotency-Key"}];
}
message SetCrateRequest {
  Crate crate = 1;
  string etag = 2 [(footlights.http.v1.rules) = {header: "If-Match"}];
  google.protobuf.FieldMask update_mask = 3;
}
message DeleteCrateRequest {
  string crate = 1;
  string etag = 2 [(footlights.http.v1.rules) = {header: "If-Match"}];
}
message DeleteCrateResponse { string status = 1; Crate crate = 2; }
message WeighRequest { string crate = 1; }
message Frame {
  enum Change { CHANGE_UNSPECIFIED = 0; SET = 1; SYNCED = 2; }
  Change change = 1;
  string cursor = 2;
}
"""


def service(text: str = PROTO) -> ServiceDescriptor:
    """The service, in a pool of its own."""
    return from_set(compiled(text), ["depot.v1.DepotService"])[0]


@dataclass
class Depot:
    """The handlers: they note what they are asked, and answer with what the test has put here."""

    descriptor: ServiceDescriptor = field(default_factory=service)
    asked: list[Any] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    frames: list[dict[str, Any]] = field(default_factory=list)
    failure: int = 0
    counted: list[tuple[str, str]] = field(default_factory=list)

    def make(self, name: str, **values: Any) -> Any:
        """A message of the service's file."""
        pool = self.descriptor.file.pool
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"depot.v1.{name}"))(**values)

    def functions(self) -> dict[str, Any]:
        """The handlers by name."""

        async def unary(request: Any, _: HandlerCall) -> Any:
            self.asked.append(request)
            if self.failure:
                raise fail(self.failure, "no")
            return self.make("Crate", **self.answer)

        async def delete(request: Any, call: HandlerCall) -> Any:
            return self.make("DeleteCrateResponse", status="deleted", crate=await unary(request, call))

        async def watch(request: Any, _: HandlerCall) -> AsyncIterator[Any]:
            self.asked.append(request)
            if self.failure:
                raise fail(self.failure, "no")
            for frame in self.frames:
                yield self.make("Frame", **frame)

        streams = {rpc.name for rpc in self.descriptor.methods if rpc.server_streaming}
        found = {rpc.name: watch if rpc.name in streams else unary for rpc in self.descriptor.methods}
        return {**found, "DeleteCrate": delete}


OPTIONS = Options(
    strict=True, use_proto_names=True, name_status=True, cors_origins=("https://console.example",), error_domain="depot"
)


@asynccontextmanager
async def client_of(depot: Depot, options: Options = OPTIONS, root_path: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the depot behind a gateway."""
    gateway = Gateway(
        LocalUpstream(LocalHandlers(depot.descriptor, depot.functions())),
        [depot.descriptor],
        options,
        on_deprecated=lambda method, path: depot.counted.append((method, path)),
    )
    transport = httpx2.ASGITransport(app=gateway, root_path=root_path)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://depot{root_path}") as client:
        yield client


def reason(answer: httpx2.Response) -> tuple[int, str, str]:
    """The status, the reason and the field of a refusal."""
    info = answer.json()["details"][0]
    return answer.status_code, info["reason"], info.get("metadata", {}).get("field", "")
