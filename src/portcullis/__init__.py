"""Portcullis: an open conditional-access head-end.

The rooms (`gateway`, `emmg`, `encryptor`, `cycler`, `scheduler`, `mux`) are
processes; they meet in the database (`store`) or over RPC (`runtime.rpc`),
never by import. docs/architecture.md draws the house.
"""
