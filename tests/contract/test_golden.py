"""A change of the contract that `buf breaking` cannot see is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from footlights.http.v1 import annotations_pb2 as rest
from footlights.v1 import permission_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

from tests.contract import descriptors, golden
from tests.contract.__main__ import differences, outputs

SESSIONS = "footlights/v1/session.proto"


def test_the_golden_file_holds_the_contract() -> None:
    """As `make check` says; `make contract` accepts a change."""
    assert differences(outputs()) == ""


def test_what_differs_is_said_with_the_command_that_accepts_it(tmp_path: Path) -> None:
    """Fact by fact."""
    (file := tmp_path / "contract.txt").write_text("rpc A: permission x\nrpc B: http GET /b\n")

    problem = differences({file: "rpc A: permission y\nrpc B: http GET /b\n"})

    lines = problem.splitlines()
    assert [line for line in lines[2:] if not line.startswith("@")] == [
        "-rpc A: permission x",
        "+rpc A: permission y",
        "The contract has changed. If that is meant, accept it: make contract",
    ]


def _method(file: FileDescriptorProto, name: str) -> MethodDescriptorProto:
    return next(method for method in file.service[0].method if method.name == name)


def _permission(file: FileDescriptorProto) -> None:
    _method(file, "GetSession").options.Extensions[permission_pb2.permission] = "sessions.all"


def _path(file: FileDescriptorProto) -> None:
    _method(file, "GetSession").options.Extensions[annotations_pb2.http].get = "/v1/sessions/{session_id}/now"


def _deprecated(file: FileDescriptorProto) -> None:
    _method(file, "GetSession").options.deprecated = True


def _level(file: FileDescriptorProto) -> None:
    _method(file, "GetSession").options.ClearField("idempotency_level")


def _created(file: FileDescriptorProto) -> None:
    _method(file, "CreateSession").options.Extensions[rest.reply].created = False


def _maximum(file: FileDescriptorProto) -> None:
    _field(file, "limit").options.Extensions[rest.rules].maximum = 10


def _sunset(file: FileDescriptorProto) -> None:
    file.options.Extensions[rest.deprecation].sunset = "2026-12-02"


def _field(file: FileDescriptorProto, name: str) -> FieldDescriptorProto:
    message = next(message for message in file.message_type if message.name == "ListSessionsRequest")
    return next(field for field in message.field if field.name == name)


def _cardinality(file: FileDescriptorProto) -> None:
    _field(file, "label").label = FieldDescriptorProto.LABEL_OPTIONAL


def _presence(file: FileDescriptorProto) -> None:
    field = _field(file, "search")
    message = next(message for message in file.message_type if message.name == "ListSessionsRequest")
    field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
    message.oneof_decl.add().name = "_search"


def _type(file: FileDescriptorProto) -> None:
    _field(file, "search").type = FieldDescriptorProto.TYPE_BYTES


def _number(file: FileDescriptorProto) -> None:
    _field(file, "search").number = 99


def _map_value(file: FileDescriptorProto) -> None:
    session = next(message for message in file.message_type if message.name == "Session")
    entry = next(nested for nested in session.nested_type if nested.name == "LabelsEntry")
    entry.field[1].type = FieldDescriptorProto.TYPE_BYTES


def _value(file: FileDescriptorProto) -> None:
    session = next(message for message in file.message_type if message.name == "Session")
    session.enum_type[0].value[1].options.deprecated = True


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (_permission, 2),
        (_path, 2),
        (_deprecated, 3),
        (_level, 2),
        (_created, 1),
        (_maximum, 2),
        (_sunset, 2),
        (_value, 1),
        (_cardinality, 2),
        (_presence, 2),
        (_type, 2),
        (_number, 2),
        (_map_value, 2),
    ],
)
def test_each_kind_of_fact_is_in_it(change: Callable[[FileDescriptorProto], None], lines: int) -> None:
    """One changed option is one line that is gone and one that is new, or only one of both."""
    image = FileDescriptorSet.FromString(descriptors.IMAGE.read_bytes())
    change(next(file for file in image.file if file.name == SESSIONS))
    pool = DescriptorPool()
    for file in image.file:
        pool.Add(file)
    before = golden.text(descriptors.files()).splitlines()

    after = golden.text(pool.FindFileByName(file.name) for file in descriptors.image()).splitlines()

    assert len(set(before) ^ set(after)) == lines
