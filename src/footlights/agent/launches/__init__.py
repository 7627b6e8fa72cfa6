"""The node's launches, from assignment to proved end.

``table`` holds them, ``launches`` makes them agree with what is assigned. Each has a ``record`` (what is known of it,
changed by its own methods only), an ``observer`` (what is seen of it: processes by ``exits``, readiness and viewers by
``probes``, what viewers should know by ``notices``) and a ``runner``, which does what ``step`` decides: one pure table
of everything that a launch may do next. ``journal`` keeps what must survive the agent, ``log_retention`` the output of
launches that are over; ``warm_caches`` takes what one made for others to read.

Two watch over all of them: ``orphans`` ends processes that carry the node's mark and belong to no launch, and
``abandonment`` ends what no viewer uses when the control plane has been unreachable for long.
"""
