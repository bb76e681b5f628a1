"""The wire formats of the broadcast world: bytes to values and back.

Does: MPEG-2 transport packets and sections (`ts`), the tables that lead to EMMs (`psi`), and DVB
    SimulCrypt EMMG/PDG-MUX messages and state machines (`simulcrypt`).
Owns: nothing; holds no table and no file.
Hears: bytes, and the time as an argument.
Speaks: bytes, values and typed errors, all of them a `dvbwire.errors.DvbWireError`.
Never: does I/O, reads a clock, imports anything but the standard library.
"""
