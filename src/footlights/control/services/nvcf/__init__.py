"""NVIDIA Cloud Functions (NVCF) as far as portals need it that were written for it, over the handlers of our own API.

``function_ids`` says which application an id stands for, ``functions`` lists them, and ``sign_in`` has the sessions,
which are started, connected to and ended at one path, ``/sign_in``; ``asked`` reads what such a request says.

Facts that shape it: a portal waits 5 s for the start of a session and 10 s for a WebSocket to open, and shows its user
the body of a refusal, as the reason of a close of at most 123 bytes. So a start is answered once a device is found, and
a WebSocket is opened before its application is ready, and joined to it then.
"""
