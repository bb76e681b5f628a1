"""EMMG: from orders to sealed EMMs.

Does:   claims dirty devices, reads what was ordered for them, has it sealed by
        the encryptor in batches, writes it for the carousel.
Owns:   `emms`, `airings`, `feed`, `claims`; in `device_work` the number and the outcome.
Hears:  nobody; it polls `device_work`.
Speaks: to the encryptor (RPC), in batches of hundreds.
Never:  sees a key in clear; holds a row lock across an RPC; goes on sealing when the clocks
        of database, encryptor and itself disagree by more than five minutes.
"""
