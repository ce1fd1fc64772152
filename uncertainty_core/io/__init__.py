"""Files that are whole or absent, JSON that every reader accepts, and folders that remember their settings."""

from .claims import ClaimError, check_claim, check_claims, claim, clear, is_written_for
from .files import write_atomically
from .strict_json import strict, strict_json
