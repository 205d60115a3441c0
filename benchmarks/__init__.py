"""What `make bench` measures. Times are printed and written down, never asserted."""
