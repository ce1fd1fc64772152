"""Files that are whole or absent, and JSON that every reader accepts."""

from .files import write_atomically
from .strict_json import strict, strict_json
