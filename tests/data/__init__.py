"""Laws over everything that the product ships as data."""
