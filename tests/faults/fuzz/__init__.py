"""Rubbish for everything that reads bytes from outside, coverage-guided.

Does: `python -m tests.faults.fuzz TARGET --runs N` throws mutations of real sessions at one target
    until N inputs have been run, one fails, or one takes too long.
Owns: nothing; what it finds is printed, and belongs into a regression test.
"""
