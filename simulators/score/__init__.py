"""The score: a labelled corpus through the engine, and what became of it."""
