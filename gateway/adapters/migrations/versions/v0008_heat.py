"""What the map of the last days counts stands in one index: reading it from the incidents themselves takes seconds."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

COLUMNS = ["sort", "opened_at", "community", "grid", "place", "category", "level", "number"]


def upgrade() -> None:
    """Makes the index."""
    op.create_index("ix_incident_heat", "incident", COLUMNS)
