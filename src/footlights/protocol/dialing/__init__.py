"""What all that dial a server by gRPC do alike, and what they say where it cannot be reached.

``proxies`` keeps connections to this machine off the proxies of the environment, and names one that is in the way;
``tls_hints`` says what TLS has to do with it.
"""
