"""The store: SQLModel tables, two engines, guarded updates. The only package that imports sqlmodel.

How it is used: everything that happens is a *unit* (``unit``), a plain function of one open transaction that runs in a
thread. ``Store.read`` runs units beside each other, each on one state of the database; ``Store.write`` puts them into
the writer's queue. Writes are group-committed (``writer``): those that arrive while one commit is under way share the
next, each in a savepoint of its own, and none is acknowledged before its commit is on disk (SQLite in WAL mode with
``synchronous=FULL``). Items of a ``BatchWrite`` that share a commit are also written by the same few statements, and
``Coalescer`` does so for reads. No transaction is ever held across I/O of another kind.

Where things are: ``schema`` declares tables and the records that rows are read as; ``sessions``, ``launches``,
``nodes``, ``cluster``, ``applications``, ``tokens`` and ``remembered_calls`` hold the functions of a transaction, by
what they are about; ``bulk`` inserts and updates many rows; ``engines`` knows what differs between databases; ``admin``
is what an operator does to a database; ``migrations`` is Alembic's.

What must hold:

* Rows are frozen records. A row that cannot be decoded fails the read of it alone: reads of many skip and log it.
* Invariants are unique indexes, above all one live lease a slot.
* The one concurrency primitive is ``UPDATE ... WHERE revision = :seen``. Rows are locked in one order everywhere.
* Whatever the database raises reaches callers as an ``errors.Error``.
* Time and ids come in as parameters; times are microseconds since the epoch in UTC, so that both engines sort alike.
"""

from footlights.store.engines.opening import open_store
from footlights.store.store import Store
from footlights.store.unit import BatchWrite, Transaction, Unit

__all__ = ["BatchWrite", "Store", "Transaction", "Unit", "open_store"]
