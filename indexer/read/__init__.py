"""Records in: files and iterables → checked documents, columns and passages."""
