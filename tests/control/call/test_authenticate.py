"""Tokens are remembered only while they are known to be valid; what callers are told is in ``test_permissions``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from footlights import errors
from footlights.auth import tokens as secrets
from footlights.auth.roles import Role
from footlights.control.call.authenticate import TokenAuthenticator
from footlights.control.services.tokens import new_token
from footlights.store import open_store, tokens

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = b"k" * 32


async def test_a_revocation_during_a_tokens_first_check_is_not_forgotten(tmp_path: Path) -> None:
    """The row that was being read may be from before it, so it is not remembered."""
    store = open_store(tmp_path)
    try:
        text, write = new_token(KEY, Role.DEVELOPER, "ann", "", now=NOW)
        await store.write(write)
        presented = secrets.parse(text)
        assert presented is not None
        authenticator = TokenAuthenticator(store, KEY, lambda: NOW)
        checking = asyncio.create_task(authenticator.caller(f"Bearer {text}"))
        await asyncio.sleep(0)
        authenticator.forget(presented.token_id)
        await checking
        await store.write(lambda tx: tokens.revoke(tx, presented.token_id, now=NOW))

        with pytest.raises(errors.Unauthenticated) as caught:
            await authenticator.caller(f"Bearer {text}")

        assert caught.value.reason == "TOKEN_REVOKED"
    finally:
        await store.close()
