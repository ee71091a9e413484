"""The Content-Type of an object by its file name's extension: the same on every machine and every Python.

The table is the standard library's own (never the machine's /etc/mime.types), with the web types that it lacks or that
differ between versions of Python. A compressed file is that: it is stored as it is, without a Content-Encoding.
"""

from __future__ import annotations

import mimetypes
import posixpath
from functools import cache

UNKNOWN_TYPE = "application/octet-stream"

_WEB_TYPES = {
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apk": "application/vnd.android.package-archive",
    ".apng": "image/apng",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".bz2": "application/x-bzip2",
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eot": "application/vnd.ms-fontobject",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".ico": "image/vnd.microsoft.icon",
    ".jfif": "image/jpeg",
    ".js": "text/javascript",
    ".jsonld": "application/ld+json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/x-m4v",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rar": "application/vnd.rar",
    ".rtf": "application/rtf",
    ".ts": "video/mp2t",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "text/xml",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def content_type_of(path: str, file: str = "") -> str:
    """Return the type for a cloud path's extension; where the path has none, for the local file's.

    =====================  ==========  ==========================
    path                   file        type
    =====================  ==========  ==========================
    a/b.PNG                any         image/png
    a/b.tar.gz             any         application/gzip
    a/b                    c.webp      image/webp
    a/b.unknown            c.png       application/octet-stream
    a/.png, a/b            c           application/octet-stream
    =====================  ==========  ==========================
    """
    extension = posixpath.splitext(path)[1] or posixpath.splitext(file)[1]
    return _types().get(extension.lower(), UNKNOWN_TYPE)


@cache
def _types() -> dict[str, str]:
    # An instance holds the library's own table only; what the machine's files say goes into the module's.
    return mimetypes.MimeTypes().types_map[True] | _WEB_TYPES
