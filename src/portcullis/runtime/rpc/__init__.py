"""The encryptor's RPC: `encryptor.proto` and what protoc makes of it."""
