"""A Sigstore of our own, to sign and to forge with: keys, authorities, logs, timestamps, storage.

Shares no code with src/: everything here is Python on `cryptography` and `asn1crypto`, and
written from the formats' specifications.
"""
