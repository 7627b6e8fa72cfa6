"""The control plane: interceptors, one servicer a service, and the loops.

    REST - gateway -+
    gRPC -----------+- interceptors - servicer - one transaction - commit - wake
                                                                             |
             placing: load - scheduler.place (pure) - guarded write of leases and launches
                                                                             |
              link: assignments (full set, then changes) -> agent -> reports (observed state)

* A servicer writes intent, never observed state.
* Loops are level-triggered: a wake-up hurries them, a period guarantees them; a lost wake-up costs latency only.
* Messages and rows are joined in ``convert`` and nowhere else.
"""
