"""How long the proofs last: FAULTS=full (make test-faults) or the short form of make test."""

import os

IS_FULL = os.environ.get("FAULTS") == "full"
