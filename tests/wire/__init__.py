"""The wire: what sources send, understood or refused, never raised."""
