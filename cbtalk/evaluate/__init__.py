"""Figures of a talker on clips."""
