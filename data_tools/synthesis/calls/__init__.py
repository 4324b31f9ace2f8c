"""Calls of the teachers: what is asked, how an endpoint is asked, and the journal of what was answered."""
