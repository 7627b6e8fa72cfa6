"""Applications that attack the node they run on, and a judge that says whether they succeeded.

``program`` is what runs as the application: the standard library only, one mode for each attack. ``attacks`` lists
the modes with what each one claims. ``range`` starts a neighbour and the attacker by any launcher and judges from
outside: by who is alive, who answers on a port, and what secrets the attacker read, never by its word alone.

A launcher's own tests give it a `range.Setting` and expect that no attack succeeds. ``test_range`` runs all of them by
the `process` launcher, which separates nothing: there they succeed, or an attack that fails elsewhere would show
nothing.
"""
