"""What every command-line program here shares. Importing it imports no torch: `--help` and typos answer at once."""

from .console import Steps, echo, log_to, progress, silent, track
from .program import add_common_flags, check_at_least, device_text, parse_task, program
