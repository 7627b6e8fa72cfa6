"""Footlights: the open control plane for streaming GPU applications.

The package lies in two trees that are one in a wheel: ``src/footlights``, which people write, and
``gen/footlights``, which ``make generate`` writes from ``proto/``.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
