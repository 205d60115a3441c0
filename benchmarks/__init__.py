"""The measurements of `make bench`. Times are printed and written down, never asserted."""
