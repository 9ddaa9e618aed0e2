"""Turns the committed rows into Markdown, with a function for each benchmark."""
