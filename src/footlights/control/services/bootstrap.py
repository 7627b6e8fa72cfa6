"""The first operator's token of a cluster, and one more where all tokens are lost.

Both are made without a call to a server. They need the database and the cluster key, which allow everything anyway.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from footlights.auth.roles import Role
from footlights.auth.secrets import ENVIRONMENT, ClusterKey
from footlights.control.credentials.cluster_keys import token_key
from footlights.control.services import tokens
from footlights.errors import FailedPrecondition, LocalReason
from footlights.linux.files import replace_file
from footlights.store import Store, Transaction, open_store
from footlights.store import tokens as rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

log = structlog.get_logger(__name__)


async def ensure_first(store: Store, key: bytes, path: Path, *, now: datetime) -> None:
    """Write the first operator's token to ``path``, mode 0600, where the store has no token yet."""
    text, add = tokens.new_token(key, Role.OPERATOR, "admin", "The first token", now=now)

    def write(tx: Transaction) -> bool:
        if rows.page(tx, None, 1).found:
            return False
        add(tx)
        return True

    if (await store.read(lambda tx: rows.page(tx, None, 1))).found or not await store.write(write):
        return
    replace_file(path, f"{text}\n".encode("ascii"))
    log.info("first_token", path=str(path))


async def recover(data_dir: Path, database: str, subject: str, environ: Mapping[str, str], *, now: datetime) -> str:
    """Make an operator's token in the store and return its text, which is stored nowhere.

    Raises Error where there is no cluster key, or the store cannot be opened: with SQLite also while a server runs.
    """
    path = data_dir / "cluster.key"
    if not environ.get(ENVIRONMENT, "").strip() and not path.exists():
        raise FailedPrecondition(
            f"There is no cluster key: neither {path} nor {ENVIRONMENT}. Give the server's --data-dir.",
            reason=LocalReason.CLUSTER_KEY_MISSING,
            metadata={"path": str(path)},
        )
    key = ClusterKey.load_or_create(path, environ)
    with contextlib.ExitStack() as stack:
        # On Postgres a server may run at the same time; SQLite's directory belongs to one process.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) if database else data_dir
        store = open_store(directory, database)
        try:
            digests = await token_key(store, key, now=now)
            text, write = tokens.new_token(digests, Role.OPERATOR, subject, "Recovered beside the server", now=now)
            await store.write(write)
        finally:
            await store.close()
    return text
