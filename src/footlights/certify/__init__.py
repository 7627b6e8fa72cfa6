"""Certifying an application: a recipe is launched on this node as a session would be, and judged line by line.

``node`` is an agent without a control plane, whose launches are real. ``trial`` is one launch on it, watched while it
runs: its processes, what they listen on, what they write. ``viewing`` connects viewers as the front door does.
``certification`` runs the trials and makes ``findings`` of what they showed: each with what to do about it.
"""
