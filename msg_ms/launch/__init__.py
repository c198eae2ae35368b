"""Start, watch and restart a job of several processes under msrun."""
