"""The contract as a text: what `buf breaking` cannot see, one fact a line, and the tables of the docs from the protos.

`python -m tests.contract` accepts the contract as it is, and writes both; with `--check` it fails where they differ.
"""
