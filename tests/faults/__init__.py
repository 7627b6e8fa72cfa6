"""The fault harness: real processes, a seeded schedule of faults, a recorder, and a checker that proves what held.

Run it with ``make faults`` (``FAULTS_SEED``, one or several; ``FAULTS_SECONDS``). What happens, in order:

1. ``cluster``: one server on SQLite, three agents with the fake and the process launcher on the stand-in NVML, each
   behind a ``proxy`` of its own, each with its data on a small tmpfs of its own (where we are root).
2. ``workload``: clients over REST and gRPC create, watch, connect, extend and terminate sessions all the while.
   Everything they ask and are told is kept by ``history.Recorder`` with monotonic times.
3. ``schedule`` draws faults from the seed; ``injuries`` does them, on the ``ward`` with its tools: ``tracing`` (EIO by
   strace), ``clocks`` that jump, a server that is ``deaf`` to wake-ups, ``vanishing`` clients, ``rivals`` with the same
   identity or a stale view. What cannot be done here is skipped and said.
4. ``sampler`` looks at /proc and at the database from the outside, some times a second.
5. Faults stop, all is healed, everything gets time to settle; ``evidence`` photographs the end, all sessions are
   terminated, and it is photographed again.
6. ``checker`` proves from that evidence, and from nothing else, that nothing was lost, doubled or leaked. It is a
   pure function with tests of its own (``test_checker``), and planted bugs show that it sees (``planted``).

Times are the harness's own monotonic clock; the server's clock is only ever compared with itself.
"""
