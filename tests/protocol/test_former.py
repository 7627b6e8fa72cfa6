"""The messages of the release before and the present ones are read from each other's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from footlights.agent.v1 import agent_pb2
from footlights.replica.v1 import replica_pb2, replica_pb2_grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from footlights.protocol import former

RELEASED = Path(__file__).parents[2] / "proto" / "released.binpb"


def released() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(RELEASED.read_bytes()).file:
        pool.Add(file)
    return pool


POOL = released()
SERVICES = [*agent_pb2.DESCRIPTOR.services_by_name.values(), *replica_pb2.DESCRIPTOR.services_by_name.values()]


def message(name: str) -> Any:
    """A message class of the release before."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"footlights.v1.{name}"))


def changed(old: Descriptor, new: Descriptor, seen: set[str]) -> Iterator[str]:
    """Members of the release before that are not read as what they were."""
    if old.full_name in seen or old.full_name.startswith("google."):
        return
    seen.add(old.full_name)
    for field in old.fields:
        now = new.fields_by_number.get(field.number)
        if now is None:
            # An agent does not say what is the control plane's own.
            if not (old.name == "Device" and any(a <= field.number < b for a, b in ((17, 18), (21, 25)))):
                yield f"{old.name}.{field.name} is gone"
        elif (now.name, now.type, now.is_repeated) != (field.name, field.type, field.is_repeated):
            yield f"{old.name}.{field.name} is {now.name}"
        elif field.enum_type is not None:
            assert now.enum_type is not None
            numbers = {value.name: value.number for value in now.enum_type.values}
            yield from (
                f"{old.name}.{field.name}: {value.name}"
                for value in field.enum_type.values
                if numbers.get(value.name) != value.number
            )
        elif field.message_type is not None:
            assert now.message_type is not None
            yield from changed(field.message_type, now.message_type, seen)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_bytes_of_the_release_before_are_read_as_what_they_were(service: Any) -> None:
    """Every call, with every member of its messages, by number, name and type."""
    old = POOL.FindServiceByName(former.NAMES[service.full_name])
    seen: set[str] = set()
    found: list[str] = []
    for method in old.methods:
        now = service.methods_by_name[method.name]
        assert (now.client_streaming, now.server_streaming) == (method.client_streaming, method.server_streaming)
        found += changed(method.input_type, now.input_type, seen)
        found += changed(method.output_type, now.output_type, seen)

    assert found == []
    assert len(seen) > 3


def test_an_assignment_is_understood_by_an_agent_of_the_release_before() -> None:
    """Recipe, arguments and secrets are where it looks for them."""
    now = agent_pb2.Assignment(launch_id="l", epoch=3, desired=agent_pb2.Assignment.RUNNING, secrets=b"{}")
    now.version.command.extend(["run", "{signal_port}"])
    now.version.fake.viewers = 2
    now.arguments.update({"quality": "high"})
    now.needs.slots = 2
    now.limits.max_duration.FromSeconds(60)
    old = message("LinkResponse").FromString(agent_pb2.LinkResponse(assignment=now).SerializeToString()).assignment

    assert (old.launch_id, old.epoch, old.desired, old.secrets) == ("l", 3, 1, b"{}")
    assert list(old.version.command) == ["run", "{signal_port}"]
    assert (old.version.fake.viewers, old.needs.slots, old.limits.max_duration.seconds) == (2, 2, 60)
    assert old.arguments["quality"] == "high"


def test_a_hello_of_the_release_before_is_understood() -> None:
    """It is whole, and says one version."""
    old = message("Hello")(node="node-a", incarnation="i", protocol_version=1)
    old.facts.labels["zone"] = "a"
    old.inventory.devices.add(uuid="GPU-0", slots=2)
    old.launches.add(launch_id="l", epoch=1, state=5, log_tail=["the end"])
    now = agent_pb2.Hello.FromString(old.SerializeToString())

    assert (now.node, now.protocol_version, now.HasField("protocol"), now.HasField("part")) == (
        "node-a",
        1,
        False,
        False,
    )
    assert now.facts.labels["zone"] == "a"
    assert [(device.uuid, device.slots) for device in now.inventory.devices] == [("GPU-0", 2)]
    assert now.launches[0].state == agent_pb2.LaunchReport.EXITED
    assert list(now.launches[0].log_tail) == ["the end"]


async def test_a_channel_with_former_names_calls_by_them() -> None:
    """Through the generated stub, so that nothing else need know."""
    called = []

    async def answer(request: Any, context: Any) -> replica_pb2.FindRivalResponse:
        called.append(request.node)
        return replica_pb2.FindRivalResponse(incarnation="found")

    handler = grpc.unary_unary_rpc_method_handler(
        answer, replica_pb2.FindRivalRequest.FromString, replica_pb2.FindRivalResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("footlights.v1.ReplicaService", {"FindRival": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = replica_pb2_grpc.ReplicaServiceStub(former.FormerNames(channel))  # type: ignore[call-overload]
        found = await stub.FindRival(replica_pb2.FindRivalRequest(node="node-a"), timeout=5)
    await server.stop(None)

    assert (found.incarnation, called) == ("found", ["node-a"])
