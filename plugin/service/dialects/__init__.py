"""Rerank and search APIs that other software speaks already, one file for each."""
