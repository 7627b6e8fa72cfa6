"""What every package that speaks the API or the agents' link shares; pure, and each function has its inverse here.

``times`` has Python's values as protobuf's well-known types, so that a duration has one resolution (a microsecond)
wherever it is written; ``enums`` its enums by name. The rest is what both sides of the link must do alike:
``handshake`` (versions and features), ``bounds`` (how large each field may be, ``output`` for last lines), ``parts``
(sets that are larger than a message), ``counterparts`` (the link's messages and the public ones that show the same),
``shares`` (what is left of a device beside what its sessions were promised), and for one release ``former`` (the names
that the release before knows). What belongs to one message only stays with its user.
"""
