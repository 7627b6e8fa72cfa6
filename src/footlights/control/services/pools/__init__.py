"""Pools for those who call: `service` defines them, `ahead` says which sessions take an instance."""
