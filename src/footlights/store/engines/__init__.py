"""The databases that the store runs on, each behind one small object.

``engine.DatabaseEngine`` is what the rest of the store asks wherever engines differ; ``sqlite`` and ``postgres`` are
its two implementations and the only modules that know a dialect. ``opening`` chooses one, migrates its tables and
starts the store. ``notify`` is LISTEN and NOTIFY between replicas. A new engine is a module here and a line in
``opening``.
"""
