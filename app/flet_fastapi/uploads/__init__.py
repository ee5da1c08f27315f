"""Files from browsers: a signed URL per file, an endpoint that takes it, a storage that keeps it."""

from __future__ import annotations

from .endpoint import FletUpload
from .refusal import UploadRefused
from .urls import asked_paths, placed_below, upload_url

__all__ = ["FletUpload", "UploadRefused", "asked_paths", "placed_below", "upload_url"]
