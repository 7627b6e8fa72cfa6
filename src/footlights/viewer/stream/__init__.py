"""From pictures to viewers: encoding in one thread, WebRTC on the event loop.

`viewers` admits viewers and owns the rest: `encoder` (one encoding per codec in use), `broadcast` (its packets to each
viewer's track, with bit rate control), `peer` (one viewer's connection), `media_port` (the one UDP socket that all of
them share). `whep` is the HTTP signalling in front.
"""
