"""Skew: releases side by side. ``matrix`` lists who is tested with whom, and is the page `docs/skew.md`."""
