"""JSON files of annotation programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UserError


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: The file can't be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None
    except RecursionError:
        raise UserError(f"{path}: values are nested too deeply") from None
    except ValueError as error:  # JSON and encoding
        raise UserError(f"{path}: not valid JSON: {error}") from None
