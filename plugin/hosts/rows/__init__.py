"""Databases that keep row vectors and codes in the user's own tables: one file for each, all of them `RowStore`s."""
