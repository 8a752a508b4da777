"""Adapters, one small module for each host: they translate names and types. Import them one by one."""
