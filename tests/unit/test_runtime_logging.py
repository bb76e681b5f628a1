"""What a room loads to write its log."""

import subprocess
import sys


def test_a_log_loads_no_rich_which_commands_still_find() -> None:
    """Colours and tables are of the command line."""
    script = (
        "import sys, portcullis.runtime.logging; assert 'rich' not in sys.modules, 1;"
        " import rich.console; print(rich.console.Console)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
