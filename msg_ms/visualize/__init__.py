"""Draw contact sheets and attention maps."""
