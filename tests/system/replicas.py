"""Several servers on one Postgres, and agents that know all of them."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg

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
        self.database, self._count, self._roles = database, count, roles
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.replicas: dict[str, Replica] = {}

    async def start_server(self) -> None:
        """Start all replicas: the first one makes the database and the first token."""
        roles = self._roles or ("",) * self._count
        first, *others = ((f"server-{number}", roles[number]) for number in range(self._count))
        await self.start_replica(first[0], roles=first[1])
        await asyncio.gather(*(self.start_replica(name, roles=role) for name, role in others))

    async def start_replica(
        self, name: str, *, roles: str = "", python: str = sys.executable, environment: dict[str, str] | None = None
    ) -> Replica:
        """Start one replica, on the ports that it had before where it had any."""
        data, before = self.directory / name, self.replicas.get(name)
        (data / "endpoints.json").unlink(missing_ok=True)
        argv = [python, "-m", "footlights", "server", "--data-dir", str(data), "--database", self.database]
        argv += ["--grpc-listen", before.grpc if before else "127.0.0.1:0"]
        argv += ["--http-listen", before.http.removeprefix("http://") if before else "127.0.0.1:0"]
        argv += ["--roles", roles] if roles else []
        environment = {"FOOTLIGHTS_CLUSTER_KEY": self._key, **(environment or {})}
        process = await Process.start(name, [*argv, *self.server_options], self.directory / f"{name}.log", environment)

        async def listening() -> bool:
            assert process.process.returncode is None, f"{name} ended:\n{process.tail()}"
            return (data / "endpoints.json").exists()

        await until(listening, what=f"{name} listens", timeout_s=60)
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

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def id_of(self, name: str) -> str:
        """Return what a replica calls itself; empty where it is of a version without replicas."""
        path = self.directory / name / "replica"
        return path.read_text().strip() if path.exists() else ""

    def named(self, replica: str) -> str:
        """Return the name of the replica that calls itself so; empty where it is none of ours."""
        return next((name for name in self.replicas if replica and self.id_of(name) == replica), "")

    def holder(self, work: str) -> str:
        """Return the name of the replica that does some work for all; empty where nobody does."""
        return self.named(next((row[0] for row in self.rows("SELECT holder FROM work WHERE work = %s", work)), ""))

    def hub_of(self, node: str) -> str:
        """Return the name of the replica that has a node's link; empty where nobody has."""
        found = self.rows("SELECT hub FROM node WHERE node = %s AND connected", node)
        return self.named(found[0][0] or "") if found else ""

    def doubled(self) -> list[tuple[Any, ...]]:
        """Return the slots that two launches have, and what does not agree on who has them."""
        return [
            *self.rows(
                "SELECT node, device, slot, count(*) FROM lease WHERE released_time IS NULL "
                "GROUP BY node, device, slot HAVING count(*) > 1"
            ),
            *self.rows(
                "SELECT lease_id, launch_id FROM lease JOIN launch USING (launch_id) "
                "WHERE (released_time IS NULL) <> (ended_time IS NULL)"
            ),
            *self.rows(
                "SELECT session_id, count(*) FROM launch WHERE ended_time IS NULL GROUP BY session_id "
                "HAVING count(*) > 1"
            ),
        ]

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
