"""Side-by-side measurements; `python -m bench` runs them all (see README.md here)."""
