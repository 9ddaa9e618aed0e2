"""What the committed rows say, as Markdown: a function for each benchmark."""
