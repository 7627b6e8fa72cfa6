"""The control plane's own state: revisions, replicas and leader leases, and the database's clock."""
