"""Filter expressions of lists and watches: a subset of AIP-160, over members that each resource names.

``parse`` reads a text into ``conditions``, checked against a resource's members: what comes out of it is typed, bounded
in size, and can be evaluated. ``conditions.matches`` evaluates it on the values of one resource; the store compiles the
same conditions to SQL (``store.sessions.filtering``). Both say the same of every resource: an absent value is equal to
nothing, and a negation of that is true.

What differs from AIP-160: AND and OR beside each other need parentheses, since AIP-160 and SQL disagree about which
binds stronger; there are no bare words that search everywhere, and no functions. ``docs/filters.md`` is for users.
"""

from footlights.filters.conditions import Both, Comparison, Condition, Either, Negation, matches, possible
from footlights.filters.parse import Kind, Member, parse

__all__ = [
    "Both",
    "Comparison",
    "Condition",
    "Either",
    "Kind",
    "Member",
    "Negation",
    "matches",
    "parse",
    "possible",
]
