"""What was measured, drawn. Needs matplotlib, which is imported when a plot is made."""

__all__: list[str] = []
