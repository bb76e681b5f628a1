"""Of stacks as py-spy counts them, the functions that were at work themselves."""

from bench.profiles import hottest


def test_a_function_s_own_share_is_that_of_the_stacks_that_end_in_it() -> None:
    """Whoever called it; a blank in a name does not part name and count."""
    stacks = "main (a.py);put (b.py) 6\nmain (a.py);<lambda> (c d.py) 3\nput (b.py) 1\n"
    assert hottest(stacks) == [("put (b.py)", 70.0), ("<lambda> (c d.py)", 30.0)]


def test_a_thread_without_a_python_frame_is_named_so() -> None:
    """Such as one that the interpreter is about to begin or to end."""
    assert hottest(" 1\nput (b.py) 3\n") == [("put (b.py)", 75.0), ("(no Python frame)", 25.0)]
