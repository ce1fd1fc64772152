"""Metrics, sampling, losses, targets and plots shared by the plugins."""
