"""A simulated fleet: many agents in a few processes, against a real control plane.

Real are the links and the agent's records and decisions about launches; simulated are the devices and applications,
drawn from a seeded profile. A simulated node has no journal, no threads, and no task a launch. Its devices are
``FAKE``, and its label keeps real sessions and simulated ones apart.

``main`` runs in the parent, which also creates and ends sessions (``demand``); ``worker`` is a child that holds some of
the nodes (``node``) and their launches (``launch``). They exchange JSON lines over the child's stdin and stdout.
"""
