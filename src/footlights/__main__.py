"""``python -m footlights`` is the command ``footlights``."""

from footlights.cli import main

if __name__ == "__main__":
    main()
