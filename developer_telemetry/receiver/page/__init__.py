"""What an operator sees at `/`: machines, reports, the spool, and how to set a machine up."""
