"""From HTTP method and path to a binding.

The binding declared last wins. Paths are matched decoded and are not cleaned: ``//`` and a trailing slash make empty
components, and ``*`` matches an empty component, too, except in strict mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.gateway.routing.binding import Binding

_MAX_KNOWN: Final = 1000
"""A bound, because templates with unnamed wildcards match any number of paths."""


class Route(NamedTuple):
    """A binding and what its path variables matched, by field path."""

    binding: Binding
    variables: dict[str, str]


class VerbAlone(Exception):
    """The last component is a verb and nothing else: grpc-gateway answers 404 without a further search."""


class Router:
    """Finds bindings.

    Args:
        bindings: in order of declaration.
        strict: differ from grpc-gateway in two points. A path that ends in the verb of a template that matches it
            belongs to that template alone, so that ``GET /a/x:stop`` is a wrong method of ``POST /a/{name}:stop`` and
            not the name ``x:stop`` of ``GET /a/{name}``. And a wildcard does not match an empty component: ``/a/`` is
            not ``GET /a/{name}`` without a name.
    """

    def __init__(self, bindings: Sequence[Binding], *, strict: bool = False) -> None:
        self._strict = strict
        self._with_verb = [b for b in bindings if b.template.verb] if strict else []
        self._by_method: dict[str, list[Binding]] = {}
        for binding in reversed(bindings):
            self._by_method.setdefault(binding.http_method, []).append(binding)
        self._by_count: dict[tuple[str, int], list[Binding]] = {}
        self._known: dict[tuple[str, str], Route] = {}
        self._longest = max((len(b.template.segments) for b in bindings), default=0) + 1

    def plain(self, method: str, path: str) -> Route | None:
        """The binding for a request as ``find`` returns it, from a cache where the path has no variables.

        None is also returned for paths that only ``find`` can decide.
        """
        known = self._known.get((method, path))
        if known is not None:
            return known
        if path[:1] != "/" or "/:" in path:
            return None
        found = self.find(method, path)
        if found is not None and not found.variables and len(self._known) < _MAX_KNOWN:
            self._known[method, path] = found
        return found

    def find(self, method: str, path: str) -> Route | None:
        """The binding for a request, or None.

        Raises:
            VerbAlone: the last component is a verb and nothing else.
        """
        components = path[1:].split("/")
        last = components[-1]
        if last.startswith(":"):
            candidates: Sequence[Binding] = self._by_method.get(method, ())
        else:
            candidates = self._candidates(method, len(components))
        has_blank = "" in components
        for binding in candidates:
            template = binding.template
            verb = template.verb
            if not verb:
                variables = template.match(components)
            elif last.endswith(verb) and last[-len(verb) - 1 : -len(verb)] == ":":
                if len(last) == len(verb) + 1:
                    raise VerbAlone
                variables = template.match([*components[:-1], last[: -len(verb) - 1]])
            else:
                continue
            if variables is not None:
                if self._strict and (has_blank or template.deep >= 0) and template.has_gap(components):
                    continue
                if not verb and self._with_verb and ":" in last and self._is_verb(components):
                    continue
                return Route(binding, variables)
        return None

    def _is_verb(self, components: list[str]) -> bool:
        """Whether a template with a verb matches the path, of any method."""
        for binding in self._with_verb:
            name = components[-1].removesuffix(":" + binding.template.verb)
            if name != components[-1] and binding.template.match([*components[:-1], name]) is not None:
                return True
        return False

    def methods(self, path: str) -> list[str]:
        """The methods under which a path matches, sorted."""
        found = []
        for method in self._by_method:
            try:
                if self.find(method, path) is not None:
                    found.append(method)
            except VerbAlone:
                continue
        return sorted(found)

    def allowed(self, path: str) -> list[str]:
        """The methods that a strict gateway serves at a path, sorted: none, or OPTIONS and HEAD as well.

        HEAD is GET without the body, and is not there for streams, which have no end.
        """
        found = self.methods(path)
        if not found:
            return found
        more = {"OPTIONS"}
        if "GET" in found and (got := self.find("GET", path)) is not None and not got.binding.rpc.server_streaming:
            more.add("HEAD")
        return sorted({*found, *more})

    def _candidates(self, method: str, count: int) -> list[Binding]:
        # Beyond the longest template only ** can match, so the index stays bounded for any path.
        key = (method, min(count, self._longest))
        found = self._by_count.get(key)
        if found is None:
            if method not in self._by_method:
                return []
            found = [
                b
                for b in self._by_method[method]
                if len(b.template.segments) == count or (b.template.deep >= 0 and b.template.min_components <= count)
            ]
            self._by_count[key] = found
        return found
