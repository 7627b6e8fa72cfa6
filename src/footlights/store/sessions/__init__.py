"""Sessions: created, changed, derived, listed, followed.

``create`` writes new sessions; ``session_rows`` reads and changes those that exist. Whatever changes a session or its
launch does so in ``derivation.SessionStates``, which derives the session's state from them and writes both. Every
change gets a new revision, by which ``feed`` follows them. ``listing`` pages through sessions, along the index paths
that ``search`` finds for labels and texts. ``idempotency`` holds request keys.
"""
