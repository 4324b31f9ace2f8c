"""The faults, a module each kind: every module here has a list `FAULTS`."""
