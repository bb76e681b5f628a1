"""The record that is kept apart.

Does: follows what gateways and key changes commit, in the order of their
      numbers, into hash-chained files; signs the chains' heads and lays them
      down where this host cannot change them (docs/evidence.md).
Owns: no table; the files under `auditor.dir`.
Hears: nobody.
Speaks: SQL, reading only; files; syslog.
Never: writes to the database; leaves out or changes what was committed.
"""
