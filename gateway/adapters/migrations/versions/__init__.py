"""One file per version, never edited after its release."""
