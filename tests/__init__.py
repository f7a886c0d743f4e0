"""Tests of the gateway, its edge agent and its simulators."""
