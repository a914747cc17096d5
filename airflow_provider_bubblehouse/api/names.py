"""How hosts and shops are named in the API's URLs; imports next to nothing, for Airflow reads it at its start."""

from __future__ import annotations

import re

DEFAULT_HOST = "app.bubblehouse.com"
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # what may stand in the URL's path as it is
HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f.:]+")
