"""What every room stands on.

Does: configuration, logging, metrics and health, tokens, start and stop, the
      encryptor's RPC (`rpc`). Owns: no table. Never: knows a room by name
      beyond its ports.
"""
