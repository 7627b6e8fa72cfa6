"""What launches need of the node: devices that are watched, ports that are held, and the check before a start.

``inventory`` reads devices off the event loop, each read with a deadline, and judges a series of readings; ``ports``
hands out blocks of four; ``admission`` asks both, afresh, whether a launch may begin, and renders its plan.
"""
