"""Each incident says at which change of the ledger it changed last, so that readers can follow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the column; what is there already counts as changed in the order of its times."""
    op.add_column("incident", sa.Column("position", NUMBER, nullable=False, server_default="0"))
    op.execute(
        "UPDATE incident SET position = ranked.place FROM "
        "(SELECT id, row_number() OVER (ORDER BY updated_at, id) AS place FROM incident) AS ranked "
        "WHERE ranked.id = incident.id"
    )
    op.execute("INSERT INTO meta (name, value) SELECT 'position', count(*) FROM incident")
    op.create_index("ix_incident_position", "incident", ["position"])
