"""A simulated fleet: many agents in a few processes, against a real control plane.

Real are the links (`agent.link`: one connection and one stream each), the records and reports of launches
(`agent.launches.record`), and what is decided about a launch (`agent.launches.step`). Simulated are the devices and the
applications: what a launch does, and who watches it, is drawn from a seeded profile. A simulated node has no journal,
no threads, and no task a launch; its launches are timers.

The nodes say that their devices are ``FAKE``, offer the fake launcher only, and carry a label that the simulator's own
applications ask for: a real session cannot land on a simulated node, nor a simulated one on a real node.

``main`` runs in the parent, which is also the service that creates and ends sessions (``demand``); ``worker`` is a
child that holds some of the nodes. They exchange JSON lines over the child's stdin and stdout. This package may use the
agent, the client and what is below them; nothing uses it except the command line.
"""
