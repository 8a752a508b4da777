"""The page at `/`: search in the browser, and which word of the question met which word of a document."""
