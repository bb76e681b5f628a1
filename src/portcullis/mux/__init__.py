"""The MUX end of SimulCrypt EMMG/PDG-MUX, for those without a multiplexer.

Does: takes EMMs from EMMGs over TCP and UDP, puts them into the null packets of an input stream
    (file, UDP, or a filler of its own), writes the CAT, adds a TDT where the input has none, keeps
    continuity counters, sends the stream to UDP and files.
Owns: no table; keeps nothing over a restart.
Hears: SimulCrypt (TS 103 197 clause 6.2), transport packets.
Speaks: SimulCrypt, transport packets, metrics and health on its monitoring port.
Never: opens an EMM, reads the database, changes a service of its input.
"""
