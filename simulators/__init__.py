"""A simulated district, its devices and the reference central platform, to try and to test the gateway."""
