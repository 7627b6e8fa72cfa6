"""An operator's token without asking a server: the first one of a cluster, or where all are lost.

Whoever has the database and the cluster key may do everything anyway; this spares them to do it by hand.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from footlights.auth.roles import Role
from footlights.auth.secrets import ENVIRONMENT, ClusterKey
from footlights.control.services import tokens
from footlights.errors import FailedPrecondition
from footlights.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


async def recover(data_dir: Path, database: str, subject: str, environ: Mapping[str, str], *, now: datetime) -> str:
    """Make an operator's token in the store and return its text, which exists nowhere else.

    Args:
        data_dir: The server's own directory, for SQLite and for ``cluster.key``.
        database: Empty for SQLite, or a ``postgresql://`` URL.
        subject: Whose token it is.
        environ: Where ``FOOTLIGHTS_CLUSTER_KEY`` is looked for.
        now: The time of the token's creation.

    Raises:
        errors.Error: there is no cluster key, or the store cannot be opened; with SQLite also while a server runs.
    """
    path = data_dir / "cluster.key"
    if not environ.get(ENVIRONMENT, "").strip() and not path.exists():
        raise FailedPrecondition(
            f"There is no cluster key: neither {path} nor {ENVIRONMENT}. Give the server's --data-dir.",
            reason="CLUSTER_KEY_MISSING",
            metadata={"path": str(path)},
        )
    key = ClusterKey.load_or_create(path, environ)
    with contextlib.ExitStack() as stack:
        # On Postgres the server may go on: only SQLite's directory is anybody's alone.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) if database else data_dir
        store = open_store(directory, database)
        try:
            text, _ = await tokens.create(
                store, key.derive("tokens"), Role.OPERATOR, subject, "Recovered beside the server", now=now
            )
        finally:
            await store.close()
    return text
