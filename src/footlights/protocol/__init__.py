"""What every package that speaks the API shares: Python's values as protobuf's well-known types, and back.

One module a kind of value (`times`, `enums`). The functions are pure and each has its inverse here, so that a duration
has one resolution (a microsecond) wherever it is written. What belongs to one message only stays with its user.
"""
