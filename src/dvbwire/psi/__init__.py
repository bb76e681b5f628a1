"""The tables that lead a receiver to its EMMs and tell it the time.

Does: PAT, CAT, PMT (ISO/IEC 13818-1 clause 2.4.4) and TDT/TOT (EN 300 468 clauses 5.2.5, 5.2.6)
    as values; each writes itself with `to_section()` and reads itself with `from_section()`.
Owns: nothing.
Hears: one whole section.
Speaks: frozen values, sections, `PsiError` with the reason a section cannot be used.
Never: follows versions or gathers the sections of a table; that is the reader's business.
"""

from dvbwire.psi.descriptors import CaDescriptor, Descriptor, parse_descriptors
from dvbwire.psi.errors import PsiError, PsiReason
from dvbwire.psi.tables import (
    CAT_PID,
    CAT_TABLE_ID,
    PAT_PID,
    PAT_TABLE_ID,
    PMT_TABLE_ID,
    Cat,
    ElementaryStream,
    Pat,
    Pmt,
)
from dvbwire.psi.tdt import TDT_PID, TDT_TABLE_ID, TOT_TABLE_ID, Tdt

__all__ = [
    "CAT_PID",
    "CAT_TABLE_ID",
    "PAT_PID",
    "PAT_TABLE_ID",
    "PMT_TABLE_ID",
    "TDT_PID",
    "TDT_TABLE_ID",
    "TOT_TABLE_ID",
    "CaDescriptor",
    "Cat",
    "Descriptor",
    "ElementaryStream",
    "Pat",
    "Pmt",
    "PsiError",
    "PsiReason",
    "Tdt",
    "parse_descriptors",
]
