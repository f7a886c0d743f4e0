"""The edge agent: one per community, with drivers, vision and a spool on disk."""
