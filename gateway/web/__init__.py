"""The web process: FastAPI over the ledger's views and the door.

Into the ledger it writes accounts, sessions, tokens and the audit log, and nothing else: whatever concerns a community
enters by the door."""
