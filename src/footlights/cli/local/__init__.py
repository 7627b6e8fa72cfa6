"""``footlights up``: a control plane and a node agent on this machine, as child processes.

``up`` starts them in order, registers the sample application and prints how to use it. ``children`` is one process with
its log; ``bond`` ties processes together, so that none is left behind however the parent ends; ``waits`` combines
waiting for a process, a condition and a signal.
"""
