"""The words of a version: templates of commands and environments, declared arguments, stages, and their checks. Pure.

``recipe`` checks a version at registration; ``limits`` also those of profiles and sessions. ``whole_command`` is what a
version runs, ``program_text`` says where in it a session's text may be, and ``read_again`` which text. ``arguments``,
``stages`` and ``template`` convert what a session gives: in the control plane, and again on the node, which trusts no
command line that it did not make itself.
"""
