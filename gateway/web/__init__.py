"""The web process: FastAPI over the ledger's views and the door. It never writes to the ledger."""
