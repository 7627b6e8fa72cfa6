"""The words of a version: templates of commands and environments, declared arguments, stages, and their checks. Pure.

``recipe`` checks a whole version at registration, with ``declarations`` for its arguments and ``checks`` for what the
parts share. ``arguments``, ``stages`` and ``template`` convert what a session gives: in the control plane when it is
created, and again on the node, which trusts no command line that it did not make itself.
"""
