"""Renderings of a card: functions of its data."""
