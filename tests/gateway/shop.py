"""A service that uses every option of the gateway's own proto, compiled when it is asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import google.api
import grpc_tools  # type: ignore[import-untyped]
from grpc_tools import protoc

REPOSITORY = Path(__file__).parents[2]
PROTO = """
syntax = "proto3";
package shop.v1;
import "footlights/http/v1/annotations.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/protobuf/timestamp.proto";

// Sells things.
service ShopService {
  // Orders a thing. It takes
  // a while.
  //
  // - one
  // - two
  rpc Order(OrderRequest) returns (Thing) {
    option (google.api.http) = {post: "/v1/{shop=shops/*}/things" body: "*"};
    option (footlights.http.v1.reply) = {accepted: {field: "state" values: ["PENDING"]} location: "/v1/{name}"};
  }
  // Lists things.
  rpc List(ListRequest) returns (Things) { option (google.api.http) = {get: "/v1/things"}; }
  // Forgets a thing.
  rpc Forget(ForgetRequest) returns (Thing) {
    option (google.api.http) = {delete: "/v1/things/{name}"};
    option (footlights.http.v1.reply) = {empty_body: true};
  }
  // Watches things.
  rpc Watch(ListRequest) returns (stream Thing) {
    option (google.api.http) = {get: "/v1/things:watch"};
    option (footlights.http.v1.reply) = {event_id: "revision" last_event_id_field: "limit"};
  }
}
// Asks for a thing.
message OrderRequest {
  // Required. Where.
  string shop = 1 [(google.api.field_behavior) = REQUIRED];
  // Required. What.
  string what = 2 [(google.api.field_behavior) = REQUIRED, (footlights.http.v1.rules) = {
    max_length: 5 pattern: "[a-z]+" example: "\\"shoe\\""}];
  // Optional. How many.
  int32 count = 3 [(footlights.http.v1.rules) = {default_value: "1" minimum: 1 maximum: 9}];
  map<string, string> labels = 4 [(footlights.http.v1.rules) = {max_items: 3}];
}
message ListRequest {
  // How many.
  optional int32 limit = 1 [(footlights.http.v1.rules) = {
    default_value: "50" minimum: 1 maximum: 100 clamp_maximum: true}];
  string sort_by = 2 [json_name = "sort-by", (footlights.http.v1.rules) = {allowed_values: ["name", "size"]}];
  repeated Thing.State state = 3;
  Filter filter = 4;
  message Filter { google.protobuf.Timestamp from_time = 1; map<string, string> labels = 2; }
}
message ForgetRequest { string name = 1; }
message Things { repeated Thing items = 1; }
// A thing.
message Thing {
  string name = 1;
  // Output only. How it is.
  State state = 2 [(google.api.field_behavior) = OUTPUT_ONLY];
  // States of things.
  enum State {
    STATE_UNSPECIFIED = 0;
    // Not yet.
    PENDING = 1;
  }
  int64 revision = 3;
  Thing part_of = 4;
  google.protobuf.Timestamp create_time = 5;
}
"""


@cache
def compiled(text: str) -> bytes:
    """A descriptor set with source info."""
    includes = [
        REPOSITORY / "proto",
        Path(next(iter(google.api.__path__))).parent.parent,
        Path(grpc_tools.__file__).parent / "_proto",
    ]
    with TemporaryDirectory() as folder:
        (Path(folder) / "t.proto").write_text(text)
        out = Path(folder) / "out"
        arguments = ["protoc", f"-I{folder}", *(f"-I{path}" for path in includes), "--include_imports"]
        assert protoc.main([*arguments, "--include_source_info", f"--descriptor_set_out={out}", "t.proto"]) == 0
        return out.read_bytes()
