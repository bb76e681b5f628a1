"""The front door: `portcullis …`.

Does: reads the arguments, calls a room or the store, prints for people (or
      JSON with `--json`). Never: holds logic of its own beyond that.
"""
