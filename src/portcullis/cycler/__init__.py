"""The carousel: chooses what is on air next, and hands it to the multiplexers.

Does: keeps every EMM in memory, picks by class and due time, paces to the
      bandwidth allocated, logs each transmission (as-run).
Owns: `emms.first_aired_at`, `airings.first_aired_at`, the leases `stream:…`.
Hears: the feed of `emms`; SimulCrypt answers and allocations.
Speaks: EMMG⇔MUX SimulCrypt (TS 103 197 clause 6), as the EMMG.
Never: opens an EMM; forgets what it has because the database is away; airs
       without its stream's lease.
"""
