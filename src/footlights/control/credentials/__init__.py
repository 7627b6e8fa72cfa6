"""What a control plane has to prove itself with, and to verify others by.

``cluster_keys`` follows the ring of cluster keys, in the process and in the database; ``issuing`` has the certificate
authority, and the certificate of this process.
"""
