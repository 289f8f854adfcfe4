"""Faults that are injected between the code and its real parts."""
