"""``python -m footlights.cli``."""

from footlights.cli.app import main

main()
