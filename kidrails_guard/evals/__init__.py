"""Evaluations: cases, scoring, comparison, report."""
