"""Command lines that an installed package has too; tools/ holds a wrapper for each."""
