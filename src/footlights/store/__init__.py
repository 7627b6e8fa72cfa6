"""The store: SQLModel tables, two engines, guarded updates. The only package that imports sqlmodel.

Everything that happens is a *unit*: a plain function of one open transaction, run off the event loop. Writing units
are group-committed: those that arrive while one commit is under way share the next, each in a savepoint of its own,
and none is acknowledged before its commit is on disk (SQLite in WAL mode with ``synchronous=FULL``). Items of a *joint*
go further: those that share a commit are written by the same few statements. No transaction is ever held across I/O of
another kind.

* Rows are read with Core statements and are immutable; they read like the table they come from.
* Invariants are partial unique indexes, above all one live lease a slot.
* The one concurrency primitive is ``UPDATE ... WHERE revision = :seen``.
* Time and ids come in as parameters; times are microseconds since the epoch in UTC, so that both engines sort alike.
"""

from footlights.store.engines.opening import open_store
from footlights.store.store import Joint, Store, Transaction, Unit

__all__ = ["Joint", "Store", "Transaction", "Unit", "open_store"]
