"""Start, watch and restart jobs of several processes under msrun."""
