"""Adapters, one small file for each host: what it calls things, and nothing more. Import them one by one."""
