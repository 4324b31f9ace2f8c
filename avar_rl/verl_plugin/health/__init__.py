"""Whether all members of a run on Ray are alive, and which one was lost first."""
