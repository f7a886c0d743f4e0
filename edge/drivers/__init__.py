"""The drivers: one bus and its protocol each."""
