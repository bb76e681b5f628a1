"""The door to the SMS.

Does: answers the SMS-CAS interface (docs/api.md, docs/openapi.json), commits
      orders in groups, tells where each order is; brings a small token
      endpoint where no other is.
Owns: requests, transactions, devices, entitlements, products, messages; raises
      `device_work.wanted`.
Hears: JSON over HTTP with OAuth 2.0 bearer tokens.
Speaks: SQL; one line a request into the request log.
Never: answers 2xx before the commit; sees a key; waits for another room.
"""
