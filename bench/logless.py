"""`portcullis cycler` without an as-run log, which it never is: the baseline of `asrun`."""

from portcullis.cli.main import main
from portcullis.cycler.arena import Headers
from portcullis.cycler.asrun import Batch


def _note_nothing(_batch: Batch, _time_us: int, _headers: Headers, _start: int, _stop: int) -> None:
    """Take the place of `Batch.add`: a batch without records is not written."""


if __name__ == "__main__":
    Batch.add = _note_nothing  # type: ignore[method-assign]  # what the baseline is
    main()
