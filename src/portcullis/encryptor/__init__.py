"""The encryptor: the only process that holds a key in clear (docs/keys.md).

Does: seals EMMs in batches; makes product key chains, takes device keys in,
      wraps keys anew under the current master.
Owns: no table; the master key file, through `portcullis.keys`.
Hears: its gRPC (runtime/rpc/encryptor.proto) on a Unix socket or loopback;
      EMMG, scheduler and CLI call it. Speaks to: nobody.
Never: trusts what a row says of itself (the custody checks it); answers with
       a key in clear; lets one bad item spoil its batch.
"""
