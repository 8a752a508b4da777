"""Documents → rows of the table.

Rows are encoded in chunks and staged on disk, so that an interrupted write can be resumed. A build is committed in one
transaction.
"""
