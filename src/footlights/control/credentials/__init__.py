"""What a control plane has to prove itself with, and to verify others by.

``cluster_keys`` follows the ring of cluster keys, in the process and in the database; ``authorities`` has what signs
certificates, and ``issuing`` the certificates of this process.
"""
