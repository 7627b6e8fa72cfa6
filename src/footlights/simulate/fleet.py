"""The simulated nodes as the parent sees them: their tokens, and the processes that hold them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

from footlights.errors import Error, FailedPrecondition, LocalReason, NotFound
from footlights.simulate.tally import Tally
from footlights.simulate.worker import LIMIT, NodeTask, Task
from footlights.v1 import token_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from footlights.client import Client
    from footlights.simulate.settings import Simulation

AT_ONCE: Final = 32
LABEL: Final = "footlights/simulation"
_DIALS_PER_S: Final = 200.0
_END_S: Final = 20.0
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


class SimulatedFleet:
    """The nodes of one simulation. Started once, ended once."""

    def __init__(self, simulation: Simulation, clients: Sequence[Client], run: str) -> None:
        self._simulation, self._clients, self._run = simulation, clients, run
        self._tokens: list[token_pb2.CreateTokenResponse] = []
        self._workers: list[_Worker] = []

    @property
    def linked(self) -> int:
        """How many nodes have a link."""
        return sum(worker.linked for worker in self._workers)

    @property
    def met(self) -> int:
        """How many nodes have ever had one."""
        return sum(worker.met for worker in self._workers)

    @property
    def alive(self) -> int:
        """How many launches run on them."""
        return sum(worker.alive for worker in self._workers)

    def tally(self) -> Tally:
        """Return what they have seen so far, added up."""
        total = Tally()
        for worker in self._workers:
            total.merge(worker.tally)
        return total

    def failed(self) -> str:
        """Say which process has ended that should not have; empty while none has."""
        ended = [worker for worker in self._workers if worker.ended]
        return f"A process of the simulation has ended: {ended[0].complaint()}" if ended else ""

    async def start(self) -> None:
        """Create the nodes' tokens, and begin to dial. Raises footlights.errors.Error."""
        names = [f"sim-{self._run}-{number:05d}" for number in range(self._simulation.nodes)]
        self._tokens = await self._all(self._create_token, names)
        tasks = [
            NodeTask(number, name, answer.secret)
            for number, (name, answer) in enumerate(zip(names, self._tokens, strict=True))
        ]
        count = self._simulation.workers
        self._workers = await asyncio.gather(*(_Worker.start(self._task(tasks[at::count])) for at in range(count)))

    async def stop(self) -> None:
        """End the processes: every link is closed."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def remove(self) -> None:
        """Revoke the tokens and forget the nodes, as far as the control plane lets us."""

        async def one(client: Client, answer: token_pb2.CreateTokenResponse) -> None:
            with contextlib.suppress(Error):
                await client.tokens.revoke(answer.token.token_id)
            with contextlib.suppress(NotFound):
                await client.nodes.forget(answer.token.subject)

        await self._all(one, self._tokens)

    async def _create_token(self, client: Client, name: str) -> token_pb2.CreateTokenResponse:
        description = f"simulation {self._run}"
        return await client.tokens.create(
            token_pb2.CreateTokenRequest(role=token_pb2.Token.NODE, subject=name, description=description)
        )

    async def _all(self, work: Callable[[Client, _Item], Awaitable[_Found]], items: Iterable[_Item]) -> list[_Found]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(at: int, item: _Item) -> _Found:
            async with room:
                return await work(self._clients[at % len(self._clients)], item)

        return await asyncio.gather(*(one(at, item) for at, item in enumerate(items)))

    def _task(self, nodes: list[NodeTask]) -> Task:
        simulation = self._simulation
        return Task(
            profile=dataclasses.asdict(simulation.profile),
            seed=simulation.seed,
            servers=list(simulation.servers),
            nodes=nodes,
            gpus=simulation.gpus,
            slots_per_gpu=simulation.slots_per_gpu,
            ramp_s=simulation.nodes / _DIALS_PER_S,
            mishap_rate=simulation.mishap_rate,
            label=(LABEL, self._run),
            tls=simulation.tls,
            ca_file=simulation.ca_file,
            insecure=simulation.insecure,
        )


class _Worker:
    """One process, and what it last said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._complaint: list[str] = []
        self.linked = 0
        self.met = 0
        self.alive = 0
        self.tally = Tally()
        self.ended = False
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, task: Task) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "footlights.simulate.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LIMIT,
        )
        assert process.stdin is not None
        process.stdin.write(f"{task.to_json()}\n".encode())
        try:
            await process.stdin.drain()
        except ConnectionError as error:
            raise FailedPrecondition(
                f"A process of the simulation did not start: {error}", reason=LocalReason.WORKER
            ) from error
        return cls(process)

    def complaint(self) -> str:
        return self._complaint[-1] if self._complaint else f"status {self._process.returncode}"

    async def stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(b"\n")
            await self._process.stdin.drain()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
                await self._reading
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            self._reading.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        complaining = asyncio.create_task(self._listen(self._process.stderr))
        last = False
        while line := await self._process.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            self.linked, self.met, self.alive, last = said["linked"], said["met"], said["alive"], said["last"]
            self.tally = Tally.from_json(said["tally"])
        await complaining
        self.ended = not last

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._complaint = [*self._complaint[-20:], line.decode(errors="replace").rstrip()]
