"""Workarounds for MindSpore: repeated calls, the compile phase, its memory, and values that Python computes."""
