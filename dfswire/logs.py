"""Log lines: text for people at a terminal, JSON for programs everywhere else.

Every process of dfs calls `setup_logging` once.  Each line carries the id of the request that is
being served (daemon.REQUEST_ID), which is passed on with every call: `grep` for it in the logs of
all daemons shows one operation of one program from the mount to the last disk.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from dfswire.daemon import REQUEST_ID
from dfswire.errors import UsageError

FORMATS = ("auto", "text", "json")


class _RequestIdFilter(logging.Filter):
    """Gives every record the attribute `request`, which the formats print."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = REQUEST_ID.get() or "-"
        return True


class JsonFormatter(logging.Formatter):
    """One object a line.  The names of its fields stay as they are."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        seconds, fraction = divmod(record.created, 1)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            + f".{int(fraction * 1e6):06d}Z",
            "level": record.levelname,
            "service": self._service,
            "pid": record.process,
            "logger": record.name,
            "request": getattr(record, "request", "-"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII: names of files need not be UTF-8


def setup_logging(level: str = "INFO", log_format: str = "auto", service: str = "dfs") -> None:
    """Log to standard error, one line a record.  Raises UsageError for unknown words.

    "auto": text on a terminal, else JSON.
    """
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise UsageError(f"unknown log level {level!r}; one of {', '.join(known)}")
    if log_format not in FORMATS:
        raise UsageError(f"unknown log format {log_format!r}; one of {', '.join(FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestIdFilter())
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(_text_formatter() if is_text else JsonFormatter(service))
    logging.basicConfig(level=known[level.upper()], handlers=[handler], force=True)


def _text_formatter() -> logging.Formatter:
    # journald stamps each line itself; a second time in the text only makes it longer
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    return logging.Formatter(f"{stamp}%(levelname)s %(name)s [%(request)s] %(message)s")
