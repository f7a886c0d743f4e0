"""The Smart Community Gateway: signals from residential communities become governance incidents."""
