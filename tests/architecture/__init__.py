"""Tests that hold the architecture: which room may import which, and that the core reads no clock."""
