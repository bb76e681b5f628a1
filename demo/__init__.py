"""`make demo`: a day of SMS orders, from REST to virtual boxes, checked.

Starts a head-end of its own (`portcullis up`), plays `samples/day.jsonl`
through OAuth and REST, lets virtual boxes watch the transport stream, and
compares what each box holds with what the ordering side was promised.
"""
