"""What is asked of a running application: is it ready, who watches it (``readiness``), and would it show its viewers
a message (``notice``). Each is one request over loopback (``loopback``) with a deadline, and raises nothing.
"""
