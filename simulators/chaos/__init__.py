"""The fault harness: real processes, real presses, everything broken in between, and a count at the end.

`docs/chaos.md` tells what it breaks and what it demands.
"""
