"""Virtual set-top boxes: an independent witness of what was aired.

Does: finds the EMMs of a transport stream through the CAT, filters them by address as a hardware
    demultiplexer does, opens them with device keys and keeps the state of thousands of boxes,
    written from docs/emm-format.md alone.
Owns: nothing that lasts; a box lives as long as the program.
Hears: transport packets (UDP, file, standard input); no time but the stream's TDT and TOT and the
    UTC of the states.
Speaks: events as they happen, a report at the end; never a key.
Never: imports anything of the head-end; shares with it only `dvbwire`.
"""
