"""Autotuning: which of a kernel's candidates is the fastest for a call on this machine."""
