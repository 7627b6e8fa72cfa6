"""Several servers on one Postgres, and agents that know all of them."""

from __future__ import annotations

import base64
import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.system.stack import JSON, Process, Stack, until


@dataclass
class Replica:
    """One server: its process, and where it listens."""

    name: str
    process: Process
    http: str
    grpc: str
    client: httpx2.AsyncClient


class ReplicaSet(Stack):
    """Servers that share a database and a key. ``server_options`` go to each; ``roles`` to one each, in order."""

    def __init__(
        self,
        directory: Path,
        database: str,
        *,
        count: int = 3,
        roles: tuple[str, ...] = (),
        server_options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(directory, server_options=server_options)
        self._database, self._count, self._roles = database, count, roles
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.replicas: dict[str, Replica] = {}

    async def start_server(self) -> None:
        """Start all replicas, one after another."""
        for number in range(self._count):
            await self.start_replica(f"server-{number}", roles=self._roles[number] if self._roles else "")

    async def start_replica(
        self, name: str, *, roles: str = "", python: str = sys.executable, environment: dict[str, str] | None = None
    ) -> Replica:
        """Start one replica, on the ports that it had before where it had any."""
        data, before = self.directory / name, self.replicas.get(name)
        (data / "endpoints.json").unlink(missing_ok=True)
        argv = [python, "-m", "footlights", "server", "--data-dir", str(data), "--database", self._database]
        argv += ["--grpc-listen", before.grpc if before else "127.0.0.1:0"]
        argv += ["--http-listen", before.http.removeprefix("http://") if before else "127.0.0.1:0"]
        argv += ["--roles", roles] if roles else []
        environment = {"FOOTLIGHTS_CLUSTER_KEY": self._key, **(environment or {})}
        process = await Process.start(name, [*argv, *self.server_options], self.directory / f"{name}.log", environment)

        async def listening() -> bool:
            assert process.process.returncode is None, f"{name} ended:\n{process.tail()}"
            return (data / "endpoints.json").exists()

        await until(listening, what=f"{name} listens")
        endpoints = json.loads((data / "endpoints.json").read_text())
        if not self.token:
            self.token = (data / "admin.token").read_text().strip()
        client = httpx2.AsyncClient(
            base_url=endpoints["http"], headers={"Authorization": f"Bearer {self.token}"}, timeout=20
        )
        if before is not None:
            await before.client.aclose()
        replica = self.replicas[name] = Replica(name, process, endpoints["http"], endpoints["grpc"], client)
        self.grpc = ",".join(each.grpc for each in self.replicas.values())
        if self._client is None:
            self.http = replica.http
            self._client = self.client(self.token)
        return replica

    async def kill(self, name: str) -> None:
        """Kill a replica with no chance to say anything."""
        process = self.replicas[name].process
        process.kill()
        await process.process.wait()

    async def ask(self, name: str, method: str, path: str, **options: Any) -> JSON:
        """Send a request to one replica; fail unless it is answered well."""
        answer = await self.replicas[name].client.request(method, path, **options)
        assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text}"
        return dict(answer.json())

    async def _close(self) -> None:
        for replica in self.replicas.values():
            await replica.client.aclose()
            replica.process.kill()
            await replica.process.process.wait()
        await super()._close()
