"""The asyncio shell around the core; it knows no vendor, only the ports in ``ports.py``."""
